package demo

import (
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// mark is a node that a packet's tree must have.
type mark struct {
	stage string // as the node has it
	what  string // how the node's begins
	text  string // that the node's contains
}

func (m mark) String() string {
	return strings.TrimSpace(m.stage + " " + m.what + ": " + m.text)
}

func (m mark) on(n *trace.Node) bool {
	return n.Stage == m.stage && strings.HasPrefix(n.What, m.what) && strings.Contains(n.Text, m.text)
}

// follow goes through a tree, depth first, and returns what is left of the marks: none if all
// were met, in their order.
func follow(n *trace.Node, marks []mark) []mark {
	if len(marks) > 0 && marks[0].on(n) {
		marks = marks[1:]
	}
	for _, c := range n.Sub {
		marks = follow(c, marks)
	}
	return marks
}

// join makes one list of several.
func join(lists ...[]mark) (all []mark) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// up are the stages of every packet that has not been seen before, from the kernel to the simulation.
func up(port string) []mark {
	return []mark{
		{"datapath", "datapath port", "one token taken"},
		{"upcall", "queue", ""},
		{"flow", "datapath-flow copy", "no match"},
		{"flow", "wildcard table", "no match"},
		{"prep", "duplicates", "nobody"},
		{"prep", "datapath port", "is virtual port " + port},
		{"sim", "port " + port, "ingress"},
	}
}

// known are the stages of a packet that begins a flow which an earlier decision covers.
var known = []mark{
	{"datapath", "datapath port", "one token taken"},
	{"upcall", "queue", ""},
	{"flow", "datapath-flow copy", "no match"},
	{"flow", "wildcard table", "no simulation"},
	{"flow", "install", "output"},
	{"datapath", "execute", "output"},
}

// consumed: answered by a device; no flow, and an answer that starts at the egress of
// the device's port from and leaves by port.
func consumed(from, port string) []mark {
	return []mark{
		{"sim", "result", "consumed"},
		{"worker", "remember", "no flow"},
		{"", "generated packet", "egress of " + from},
		{"sim", "port " + port, "Forward(" + port + ")"},
		{"xlate", "actions", "output"},
		{"datapath", "execute", "output"},
	}
}

// forwarded: translated, remembered, installed, and sent on its way.
func forwarded(port string) []mark {
	return []mark{
		{"sim", "port " + port, "Forward(" + port + ")"},
		{"sim", "result", "forward"},
		{"xlate", "actions", "output"},
		{"worker", "remember", "wildcard entry"},
		{"datapath", "install", "output"},
		{"datapath", "execute", "output"},
	}
}

// routed is the way from alice's bridge through the router to bob's.
var routed = []mark{
	{"sim", "bridge blue", "MAC table finds"},
	{"sim", "port tenant-blue", "ingress"},
	{"sim", "router tenant", "route"},
	{"sim", "router tenant", "next hop"},
	{"sim", "port red-uplink", "ingress"},
	{"sim", "bridge red", "MAC table finds"},
}
