// Package sim decides what the virtual network does with a packet. It is pure: a
// function of (topology snapshot, learnt state, packet), with no I/O, clock,
// lock or log. The same engine serves packets, revalidation and trace.
package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Topology is the virtual network. Each method returns nil for what does not exist, and for what is not known, of which Unknown
// reports true: it has to be loaded first.
type Topology interface {
	Unknown(view.Thing) bool
	Port(uuid.UUID) *view.Port
	Bridge(uuid.UUID) *view.Bridge
	Router(uuid.UUID) *view.Router
	Chain(uuid.UUID) *view.Chain
	AddressGroup(uuid.UUID) *view.AddressGroup
	SecurityGroup(uuid.UUID) *view.SecurityGroup
	LoadBalancer(uuid.UUID) *view.LoadBalancer
}

// State is what flows have learnt. Lookups do not allocate and have no effect.
type State interface {
	// MAC finds the port behind which a bridge has seen mac.
	MAC(bridge uuid.UUID, vlan uint16, mac match.MAC) (port uuid.UUID, ok bool)
	// Neighbour finds the MAC of addr on the link of a router port. failed: it was asked
	// for and does not answer.
	Neighbour(port uuid.UUID, addr match.Addr) (mac match.MAC, ok, failed bool)
	// BridgeNeighbour finds an address that a bridge has learnt in a VLAN from a gratuitous ARP or
	// an unsolicited advertisement.
	BridgeNeighbour(bridge uuid.UUID, vlan uint16, addr match.Addr) (mac match.MAC, ok bool)
	// Connection finds the connection of a device, tracked (kind tag.Connection), its source translated
	// (tag.Translation) or its destination (tag.Destination), or a client's member (tag.Affinity), that has t as one of its directions; other is the opposite one. reply: t is
	// how answers come; replied: one has been seen.
	Connection(k tag.Kind, device uuid.UUID, t *match.Tuple) (other match.Tuple, reply, replied, ok bool)
	// FirstFragment finds what the first fragment of the datagram that t names (kind tag.Fragment) said: the ports, as in match.Key, and
	// TCP's flags. Not ok: it has not come.
	FirstFragment(t tag.Tag) (srcPort, dstPort uint16, tcpFlags uint8, ok bool)
	// FreePort proposes a port of addr, from lo to hi, for translating the source of t: no other connection of the device to
	// the same destination has it. want is preferred. 0: there is none among those leased; exhausted: nor are there
	// more to be leased.
	FreePort(device uuid.UUID, t *match.Tuple, addr match.Addr, lo, hi, want uint16) (port uint16, exhausted bool)
}

// Result is how a simulation ended.
type Result uint8

// Results.
const (
	ResultDrop      Result = iota // by topology or policy: a drop flow is installed
	ResultErrorDrop               // TTL, loop, no route ...: a drop flow that lives 5 s
	ResultForward                 // Actions towards virtual ports
	ResultConsumed                // answered by a device: nothing is installed
	ResultNotYet                  // Wait says for what; nothing else of the outcome counts
)

func (r Result) String() string {
	return [...]string{"drop", "error drop", "forward", "consumed", "not yet"}[r]
}

// LearnKind says what a Learn is.
type LearnKind uint8

// Kinds of what is learnt.
const (
	LearnMAC             LearnKind = iota // Device bridge: (VLAN, MAC) is behind Port
	LearnNeighbour                        // Device router port: Addr has MAC; Port has taught it
	LearnBridgeNeighbour                  // Device bridge: Addr has MAC in VLAN; likewise
	LearnConnection                       // Device: Orig and Reply are a connection of kind Conn that counts against Port
	LearnReplied                          // Device: the connection of kind Conn with direction Orig was answered
)

// Learn is a change of state that the worker commits after the simulation.
type Learn struct {
	Kind   LearnKind
	VLAN   uint16
	MAC    match.MAC
	Device uuid.UUID
	Port   uuid.UUID
	Addr   match.Addr

	Conn        tag.Kind // of the connection
	Orig, Reply match.Tuple
	Was         match.Tuple // not zero: it takes the place of the one with this Reply
	Idle        int64       // tag.Affinity: how long it is remembered, in ns
}

// Generated is a packet that a device made. It starts at the egress of Port,
// costs no token and installs no flow.
type Generated struct {
	Port  uuid.UUID
	Frame []byte // memory of the Context: valid until its next Reset
}

// Lease says which ports are wanted when Wait is for some.
type Lease struct{ Lo, Hi, Want uint16 }

// Logged is a packet that fitted a rule which logs, as it came to the rule. Reading it for the log is no reason to
// tell flows apart: it is not in the mask.
type Logged struct {
	Rule             *view.Rule
	Chain            *view.Chain
	Place            string // where the filter stands, such as "inbound filter"
	Device           string // name of the port, bridge or router
	EthSrc, EthDst   match.MAC
	EthType, VLAN    uint16
	Proto            uint8
	Src, Dst         match.Addr
	SrcPort, DstPort uint16 // as in match.Key
}

// PortRange is the ports from one to another, both included.
type PortRange struct{ From, To uint16 }

// Has reports whether a port is in the range.
func (r PortRange) Has(port uint16) bool { return r.From <= port && port <= r.To }

// Limits of one simulation.
const (
	MaxDevices   = 12 // bridges and routers traversed along one branch
	MaxGenerated = 4  // packets made by devices on behalf of one packet
	MaxNeeds     = 256
)

// Context carries one simulation: input, then outcome. It is reused: Reset keeps
// its memory, so that a simulation allocates nothing after warm-up. Not safe for concurrent use.
type Context struct {
	// Input.
	Topo   Topology
	State  State
	Packet packet.View // read only: rewrites are recorded as actions
	GSO    packet.GSO  // of Packet
	Trace  *trace.Node // nil: not traced
	Hint   Hint        // of a flow that is being adopted

	// Outcome.
	Result  Result
	Reason  drop.Reason    // for drops
	Actions action.Virtual // for ResultForward
	Mask    match.Mask     // fields of the key that were read
	// Of Mask, Loose are ports that have decided nothing but which connection State was asked for; and that the destination's is in DstPorts: any
	// other of these would do, if State knows as little of its connection.
	Loose     match.Mask
	DstPorts  PortRange
	UserSpace bool      // read something outside the key: install no flow
	Tags      []tag.Tag // what the outcome depends on; may repeat
	Learn     []Learn
	Generated []Generated
	Rules     []*view.Rule // that the packet fitted, in order; one may repeat
	Logged    []Logged     // of Rules, those that are to be logged
	Wait      tag.Tag      // for ResultNotYet: a neighbour of a router port, ports for translation, or a first fragment
	Lease     Lease        // for a Wait for ports
	Need      []view.Thing // for a Wait for some of the network that is not known: what has to be loaded
	Stateful  bool         // depends on connections
	Quoted    match.Tuple  // what the packet that an ICMP error quotes becomes; zero: it stays

	scratch scratch
}
