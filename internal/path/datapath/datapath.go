// Package datapath is the contract between the agent and whatever switches packets by
// exact-match flows: stages 1 and 8 of the packet's path. Every implementation
// passes datapathtest.
package datapath

import (
	"errors"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// Class is the token class of a port (htb).
type Class uint8

// Classes of ports.
const (
	VM Class = iota
	Tunnel
	VTEP
)

func (c Class) String() string { return [...]string{"vm", "tunnel", "vtep"}[c] }

// Port is a port of the datapath. Numbers are unique while the port exists, start at 1 and are
// not reused before 2^16 other ports were added.
type Port struct {
	No        uint32
	Interface string
	IfIndex   int
	Class     Class
	MTU       int
	// Credit is the port's token cell: the datapath takes one token per miss
	// with an atomic decrement, package htb adds with atomic increments. It is valid
	// until the port is deleted. That of a port which was added anew is htb.Closed: its misses are dropped as
	// drop.NotReady until the caller, who may have to make the number known first, opens it.
	Credit *int64
}

// PortStats are counters since the port was added. Admitted counts misses that got a
// token; Drops counts by kernel reason (drop.NoCredit = refused misses).
type PortStats struct {
	RxPackets, RxBytes uint64 // frames that entered the datapath here
	TxPackets, TxBytes uint64 // frames that flows sent out here
	Admitted           uint64
	Drops              [drop.KernelReasons]uint64
}

// Rate is a token bucket over Ethernet frames; of what an offloaded frame stands for, each segment with its headers. The zero Rate
// is no limit.
type Rate struct {
	BitsPerSecond uint64
	BurstBits     uint64
}

// Rates are a port's bandwidth limits, for established traffic, too. What exceeds them is dropped and counted as drop.EgressLimit
// or drop.IngressLimit at the port.
type Rates struct {
	Egress  Rate // of what comes in by the port: what its VM sends
	Ingress Rate // of what flows send out by it; Execute is not limited
}

// MissReason says why a packet came up.
type MissReason uint8

// Miss reasons.
const (
	MissNoFlow MissReason = iota // no flow for the key
	MissTTL                      // there is a flow, but it would bring the TTL to 0
	MissMTU                      // there is a flow, but for shorter packets (action.CheckLen)
)

// Miss is a packet that the datapath could not decide, and that holds one token.
// Frame is the whole frame as on the wire (a VLAN tag included), in memory that
// belongs to the Miss and is reused when the Miss is read into again.
type Miss struct {
	Key    match.Key
	Reason MissReason
	Lent   bool // the token is the root's: the port had none. A datapath that cannot tell says no
	GSO    packet.GSO
	Time   int64 // when it missed: CLOCK_MONOTONIC, ns (fake: its clock)
	Frame  []byte
}

// Flow is an exact-match flow to be installed. Empty actions: drop.
type Flow struct {
	Key     match.Key
	Actions action.Physical // read during the call only
}

// FlowInfo is a flow read back.
type FlowInfo struct {
	Key            match.Key
	Actions        action.Physical
	Packets, Bytes uint64
	Idle           time.Duration // since last used, or since installed when never used
	TCPFlags       uint8         // FIN (1) and RST (4) seen so far
	// Foreign: it is in the table of an earlier agent, which this datapath cannot use: what it does is a hint. See Heir.
	Foreign bool
}

// Exec is a packet to be sent without a flow. Execute may rewrite Frame in place.
type Exec struct {
	Frame   []byte
	GSO     packet.GSO
	InPort  uint32
	Actions action.Physical // read during the call only
	Err     error           // set by Execute for this packet alone
}

// Errors that implementations return, wrapped with what they concern.
var (
	ErrNoInterface = errors.New("interface does not exist")
	ErrNoPort      = errors.New("no such port")
	ErrBusy        = errors.New("in use by another owner")
	ErrFull        = errors.New("flow table is full")
	ErrActions     = errors.New("actions that this datapath cannot hold in a flow")
	ErrKey         = errors.New("key that this datapath cannot tell from others") // no flow for it, ever: its packets go on missing
	ErrClosed      = errors.New("datapath is closed")
	ErrGone        = errors.New("somebody else has deleted the datapath") // Open makes it anew
	ErrRates       = errors.New("this datapath has no bandwidth limits")
	ErrTunnel      = errors.New("this datapath has no tunnels")
)

// Datapath switches packets. All methods are safe for concurrent use unless they
// say otherwise; none keeps its arguments.
type Datapath interface {
	// AddPort attaches to an existing interface. Idempotent: a port that is already
	// there (also from an earlier agent) is returned with its number. May block for milliseconds.
	AddPort(iface string, class Class) (Port, error)
	// DelPort detaches. Flows from and to the port are the caller's to delete.
	DelPort(no uint32) error
	// Ports lists the ports, adopted ones included.
	Ports() ([]Port, error)
	// Stats reads the counters of one port.
	Stats(no uint32) (PortStats, error)

	// SetRates replaces the limits of a port; its buckets are full. A port that is added anew has none. ErrRates when this datapath has no
	// limits, and some are asked for.
	SetRates(no uint32, r Rates) error

	// RootCredit is the cell of what has accumulated at the root: a port without a
	// token of its own takes from here.
	RootCredit() *int64

	// Workers is how many miss queues there are. The one of a packet is its key's
	// ConnectionHash modulo Workers, so both directions of a connection use the same.
	Workers() int
	// ReadMisses fills ms with what is queued for worker, waiting up to timeout for the first
	// (0: do not wait). Returns how many were read; 0 after a timeout. Only
	// one goroutine per worker may call it. ErrClosed after Close, ErrGone when the datapath is not in the kernel any more.
	ReadMisses(worker int, ms []*Miss, timeout time.Duration) (int, error)

	// Wake has the worker's ReadMisses return early, the one that is waiting or else the next one that would wait.
	Wake(worker int)

	// PutFlows installs or replaces flows. Actions in normal form are read back as they were put: no rewrite that a later one
	// overrides before any output, and nothing after the last output. A CheckLen is the first action, or refused. When it fails, n says how many, from the
	// front, were installed; the error concerns fs[n].
	PutFlows(fs []Flow) (n int, err error)
	// DelFlows deletes flows; a missing one is no error.
	DelFlows(keys []match.Key) error
	// DumpFlows calls fn for each flow until it returns false; fn must not
	// keep the FlowInfo. Flows added or deleted meanwhile may be missed, never repeated twice in a way
	// that fn cannot bear.
	DumpFlows(fn func(*FlowInfo) bool) error

	// SetTunnelKey has every packet that comes out of a tunnel with this key go to a port as it is, without a flow and
	// without a miss; where that is the tunnel port itself, they miss, with the key in Miss.Key. Port 0 takes the key back. The port need not exist yet, and deleting it leaves the key: packets are
	// then dropped as drop.OutputGone. Packets with a key of no port are dropped as drop.TunnelKey, but
	// for replicate.Key; the Open vSwitch module has them miss. Keys are 1 to 2^24-1. ErrTunnel when this datapath has no tunnels.
	SetTunnelKey(key, port uint32) error
	// TunnelKeys lists the keys with their ports. ErrTunnel when this datapath has no tunnels.
	TunnelKeys() (map[uint32]uint32, error)

	// Execute sends packets now, each with its actions, in order. Never blocks on
	// a receiver. A failure is reported in Exec.Err.
	Execute(es []Exec)

	// Close ends reading and lets go of the datapath; ports and flows keep working.
	Close() error
}

// Heir is a Datapath that may have been opened beside one of an earlier agent whose flows it cannot use: DumpFlows then tells of that one's
// flows, which go on switching packets until TakeOver. Until then there are no misses.
type Heir interface {
	// TakeOver has packets switched by the flows that were put meanwhile. No packet is lost. Without such an
	// earlier datapath it does nothing.
	TakeOver() error
}

// Waiter is a Datapath whose misses outlast it: those that came while nobody had it open wait to be read.
type Waiter interface {
	// Waiting is how many misses of a port wait to be read now, 0 for all ports.
	Waiting(no uint32) (int, error)
}

// Settler is a Datapath whose misses outlast the agent that has read them: those that were not done when it ended come again to the next one.
type Settler interface {
	// Settle says that all misses that the worker has read are done: executed, or dropped. It is for the goroutine that reads them.
	Settle(worker int)
}

// Mender is a Datapath of which others may take parts away: pins, what is attached to interfaces.
type Mender interface {
	// Mend puts back what has been taken away, and says what that was. The error is what could not be put back: ErrBusy when another
	// process has taken the datapath's place.
	Mend() (mended []string, err error)
}
