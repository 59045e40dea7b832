package conf

import (
	"time"

	"github.com/viaduct-net/viaduct/internal/base/htb"
)

// Settings are the values of all keys, for one host. What each means, and its unit, is in the schema.
type Settings struct {
	Workers      int
	Pin, Polling string // off, on or auto
	PollTime     time.Duration
	FlowAudit    time.Duration
	Driver       string
	MaxFlowCount int
	TunnelPort   int
	Tokens       htb.Config
	MemoryLimit  int64 // MiB; 0: as the control group allows

	Flow      Flow
	Prep      Prep
	Replies   Replies
	Bridge    Bridge
	ARP       ARP
	Conntrack Conntrack
	NAT       NAT
	Topology  Topology

	Loggers Loggers
}

// Flow is agent.flow.
type Flow struct {
	MaxMasksPerPort          int
	MaxExpectedPerPort       int
	IdleTimeout, ErrorExpiry time.Duration
}

// Prep is agent.prep.
type Prep struct {
	HeldPerFlow, HeldPerPort, ParkedPerPort int
	ParkTimeout                             time.Duration
}

// Replies is agent.replies.
type Replies struct{ PerSecond, Burst int }

// Bridge is agent.bridge.
type Bridge struct {
	MaxMACsPerPort int
	MACExpire      time.Duration
}

// ARP is agent.arptable.
type ARP struct {
	MaxPerPort, MaxPending                int
	Retry, GiveUp, Failed, Stale, Expires time.Duration
}

// Conntrack is agent.conntrack.
type Conntrack struct {
	MaxPerPort                                            int
	TCPNew, TCP, TCPClosed, UDPNew, UDP, Other, FINLinger time.Duration
}

// NAT is agent.nat.
type NAT struct {
	BlockIdle, BlockRetry time.Duration
}

// Topology is agent.topology.
type Topology struct {
	IdleTimeout, CompareInterval time.Duration
}

// Loggers are levels: off, error, warn, info, debug, or inherit (all but Root).
type Loggers struct {
	Root, Config, Datapath, Flows, Store, Topology, Ports string
}

// Defaults are the schema's.
func Defaults() *Settings {
	s := new(Settings)
	keysOf(s)
	return s
}
