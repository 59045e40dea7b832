// Package debug is the agent's local socket: what it knows of ports, flows and packets, as JSON over
// HTTP on a Unix socket that only root can open. It changes nothing but which interfaces ports are bound to.
package debug

import (
	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// Status of a port's binding on this host.
const (
	StatusUp      = "up"      // the interface is a datapath port
	StatusWaiting = "waiting" // the interface does not exist yet
	StatusDown    = "down"    // the interface exists, but is not usable: see Reason
)

// Port is a virtual port that is bound to this host.
type Port struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Device string `json:"device"` // bridge NAME or router NAME
	// What the topology knows of the VM, and the MAC of the first router on its bridge.
	MAC        string   `json:"mac,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	GatewayMAC string   `json:"gateway_mac,omitempty"`
	Interface  string   `json:"interface"`
	Status     string   `json:"status"`
	Reason     string   `json:"reason,omitempty"`

	Number    uint32            `json:"number,omitempty"` // datapath port
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	Admitted  uint64            `json:"admitted"`  // misses that got a token
	Executed  uint64            `json:"executed"`  // of these, sent on
	Consumed  uint64            `json:"consumed"`  // kept by a device
	Waiting   int64             `json:"waiting"`   // parked or held back now
	InFlight  int64             `json:"in_flight"` // between the kernel and their turn
	Drops     map[string]uint64 `json:"drops,omitempty"`
	Credit    int64             `json:"credit"`   // tokens it holds now
	Capacity  int64             `json:"capacity"` // most tokens that it may hold
	Queued    int               `json:"queued"`   // misses that wait for their turn
	Work      int64             `json:"work_ns"`  // processing time it has used
	Delay     int64             `json:"delay_ns"` // mean wait for its turn
	// Delays counts misses by the time from miss to service: below 1 us, below 2 us, 4 us ...
	Delays []uint64 `json:"delays,omitempty"`
	Waited int64    `json:"waited_ns"` // the sum of these times
	// Setups counts misses by the time until their flow was installed and they were sent, in the same steps.
	Setups []uint64 `json:"setups,omitempty"`
	Setup  int64    `json:"setup_ns"` // the sum of these times
	Flows  int      `json:"flows"`
	// Entries are wildcard entries; each mask among them is bounded.
	Entries int `json:"entries"`
}

// Rule is a rule of a filter chain, with what it has met on this host.
type Rule struct {
	ID       string `json:"id"`
	Name     string `json:"name,omitempty"`
	Chain    string `json:"chain"`
	Position int    `json:"position"`
	Match    string `json:"match"`
	Action   string `json:"action"`
	Hits     uint64 `json:"hits"`    // simulated packets that fitted, about one for each new flow
	Packets  uint64 `json:"packets"` // all that fitted, those that the kernel switched too: some seconds late
	Bytes    uint64 `json:"bytes"`
}

// Flow is an exact flow, with the wildcard entry it is an instance of.
type Flow struct {
	Worker  int    `json:"worker"`
	Key     string `json:"key"`
	Mask    string `json:"mask"`
	Actions string `json:"actions"`
	Kind    string `json:"kind"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	IdleNS  int64  `json:"idle_ns"`
}

// TraceRequest asks what would become of a frame that enters at a virtual port.
type TraceRequest struct {
	Port  string `json:"port"` // name, id, or the interface's name
	Frame []byte `json:"frame"`
}

// TraceAnswer is the decision and how it came about.
type TraceAnswer struct {
	Tree    *trace.Node `json:"tree"`
	Result  string      `json:"result"`
	Reason  string      `json:"reason,omitempty"`
	Flow    *TraceFlow  `json:"flow,omitempty"` // absent: none would be installed
	Tags    []string    `json:"tags,omitempty"`
	Allowed bool        `json:"allowed"` // forwarded or consumed
}

// TraceFlow is the flow that would be installed.
type TraceFlow struct {
	Key     string `json:"key"`
	Mask    string `json:"mask"`
	Actions string `json:"actions"`
}

// Stats are counters of the whole agent. In = Executed + Consumed + Waiting + the sum of Dropped,
// and Taken = Returned + in flight.
type Stats struct {
	Host     string            `json:"host"`
	Workers  int               `json:"workers"`
	In       uint64            `json:"in"`
	Made     uint64            `json:"made"`
	Executed uint64            `json:"executed"`
	Consumed uint64            `json:"consumed"`
	Waiting  int               `json:"waiting"`
	Dropped  map[string]uint64 `json:"dropped"`
	Taken    uint64            `json:"taken"`
	Returned uint64            `json:"returned"`
	Flows    int               `json:"flows"`
	Entries  int               `json:"entries"`
	Adopted  uint64            `json:"adopted"`
	// Connections that are tracked or translated.
	Connections int    `json:"connections"`
	RootCredit  int64  `json:"root_credit"`
	Tokens      int64  `json:"tokens"` // that there are in all
	InFlight    int64  `json:"in_flight"`
	LastError   string `json:"last_error,omitempty"`

	// Troubles are what is wrong with the host and should be mended, while the agent goes on.
	Troubles []string `json:"troubles,omitempty"`

	// StoreFollowed: the store is there. Otherwise the host is served by what was known last, at Revision.
	StoreFollowed bool  `json:"store_followed"`
	Revision      int64 `json:"revision"`
}

// Problem is the body of an error answer.
type Problem struct {
	Error string `json:"error"`
}

// Add adds the counters of q to p's.
func (p *Port) Add(q *Port) {
	p.RxPackets += q.RxPackets
	p.RxBytes += q.RxBytes
	p.TxPackets += q.TxPackets
	p.TxBytes += q.TxBytes
	p.Admitted += q.Admitted
	p.Executed += q.Executed
	p.Consumed += q.Consumed
	p.Waiting += q.Waiting
	p.InFlight += q.InFlight
	p.Credit += q.Credit
	p.Capacity += q.Capacity
	p.Queued += q.Queued
	p.Work += q.Work
	p.Waited += q.Waited
	p.Setup += q.Setup
	p.Flows += q.Flows
	p.Entries += q.Entries
	if p.Drops == nil {
		p.Drops = make(map[string]uint64)
	}
	for r, n := range q.Drops {
		p.Drops[r] += n
	}
	p.Delays, p.Setups = addAll(p.Delays, q.Delays), addAll(p.Setups, q.Setups)
}

func addAll(sum, counts []uint64) []uint64 {
	for len(sum) < len(counts) {
		sum = append(sum, 0)
	}
	for i, n := range counts {
		sum[i] += n
	}
	return sum
}
