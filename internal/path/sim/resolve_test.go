package sim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state"
)

var _ sim.State = (*state.Tables)(nil)

// node simulates with the real tables, and commits what is learnt.
type node struct {
	t    *testing.T
	topo *pathtest.Topology
	s    *state.Tables
}

func (n node) run(start func(*sim.Context, uuid.UUID), port uuid.UUID, v packet.View) *sim.Context {
	c := &sim.Context{Topo: n.topo, State: n.s, Packet: v}
	start(c, port)
	if c.Result == sim.ResultNotYet {
		return c
	}
	for _, l := range c.Learn {
		switch l.Kind {
		case sim.LearnMAC:
			n.s.LearnMAC(l.Device, l.VLAN, l.MAC, l.Port)
		case sim.LearnNeighbour:
			n.s.LearnNeighbour(l.Device, l.Addr, l.MAC, l.Port)
		case sim.LearnBridgeNeighbour:
			n.s.LearnBridgeNeighbour(l.Device, l.VLAN, l.Addr, l.MAC, l.Port)
		}
	}
	return c
}

func (n node) parse(frame []byte) packet.View {
	v, why := packet.Parse(frame, 1)
	if why != drop.None {
		n.t.Fatalf("frame does not parse: %s", why)
	}
	return v
}

func (n node) forwards(c *sim.Context, ports ...string) {
	n.t.Helper()
	got := 0
	for _, a := range c.Actions {
		for _, p := range ports {
			if a.VPort == pathtest.ID(p) {
				got++
			}
		}
	}
	if c.Result != sim.ResultForward || got != len(ports) {
		n.t.Fatalf("%s %s %+v, want forward to %v", c.Result, c.Reason, c.Actions, ports)
	}
}

// TestResolveAcrossBridge: a router has to ask for a VM that nobody has seeded. The request
// is flooded, the answer teaches bridge and router, and the packet goes on.
func TestResolveAcrossBridge(t *testing.T) {
	for _, tc := range []struct{ name, target, packet string }{
		{"ARP", "10.0.2.9", "va udp eth=va>r:a ip=10.0.1.5>10.0.2.9 ports=1>2"},
		{"ND", "fd02::9", "va udp eth=va>r:a ip=fd01::5>fd02::9 ports=1>2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			topo := pathtest.MustParse(small + "vm quiet b\n")
			clk := &clock.Manual{}
			n := node{t, topo, state.New(state.DefaultConfig(), clk)}
			in := topo.MustInject(tc.packet)
			first := n.run(sim.Simulate, in.Port, in.View)
			want := tag.Tag{Kind: tag.Neighbour, ID: pathtest.ID("r:b"), Addr: addr(tc.target)}
			if first.Result != sim.ResultNotYet || first.Wait != want {
				t.Fatalf("%s, wait %v", first.Result, first.Wait)
			}
			if send, _ := n.s.Resolve(want.ID, want.Addr, in.Port); !send {
				t.Fatal("no request to send")
			}
			ask := n.parse(sim.Solicit(nil, topo.Port(want.ID), want.Addr))
			n.forwards(n.run(sim.SimulateEgress, want.ID, ask), "vb", "quiet")

			vm := topo.MAC("02:00:00:00:00:99")
			var reply []byte
			if addr(tc.target).Is4() {
				reply = packet.BuildARPReply(nil, &ask, vm)
			} else {
				reply = packet.BuildNeighbourAdvertisement(nil, &ask, vm, packet.NDOverride)
			}
			if c := n.run(sim.Simulate, pathtest.ID("quiet"), n.parse(reply)); c.Result != sim.ResultConsumed {
				t.Fatalf("reply: %s %s", c.Result, c.Reason)
			}
			n.forwards(n.run(sim.Simulate, in.Port, in.View), "quiet")
		})
	}
}

// TestUnresolvedIsAnswered: what never answers becomes host unreachable.
func TestUnresolvedIsAnswered(t *testing.T) {
	topo := pathtest.MustParse(small)
	clk := &clock.Manual{}
	n := node{t, topo, state.New(state.DefaultConfig(), clk)}
	in := topo.MustInject("va udp eth=va>r:a ip=10.0.1.5>10.0.2.9 ports=1>2")
	w := n.run(sim.Simulate, in.Port, in.View).Wait
	n.s.Resolve(w.ID, w.Addr, in.Port)
	clk.Advance(60 * time.Second)
	n.s.Tick()
	c := n.run(sim.Simulate, in.Port, in.View)
	if c.Result != sim.ResultErrorDrop || c.Reason != drop.NoNeighbour || len(c.Generated) != 1 {
		t.Fatalf("%s %s, %d generated", c.Result, c.Reason, len(c.Generated))
	}
}

// TestEqualRoutes: connections spread, and one keeps its path whatever its ports.
func TestEqualRoutes(t *testing.T) {
	topo := pathtest.MustParse(`
bridge a
router r
vm va a 02:00:00:00:00:0a
link a r=10.0.0.1/16
uplink u1 r 02:00:00:00:01:00 192.0.2.2/30
uplink u2 r 02:00:00:00:02:00 192.0.2.6/30
route r 0.0.0.0/0 via 192.0.2.1 out u1
route r 0.0.0.0/0 via 192.0.2.5 out u2
neighbour u1 192.0.2.1 02:00:00:00:01:01
neighbour u2 192.0.2.5 02:00:00:00:02:01
`)
	out := func(host int, ports string) uuid.UUID {
		in := topo.MustInject(fmt.Sprintf("va udp eth=va>r:a ip=10.0.0.%d>198.51.100.7 ports=%s", host, ports))
		var c sim.Context
		topo.Simulate(&c, &in)
		if c.Result != sim.ResultForward {
			t.Fatalf("host %d: %s %s", host, c.Result, c.Reason)
		}
		return c.Actions[len(c.Actions)-1].VPort
	}
	seen := map[uuid.UUID]int{}
	for host := 2; host < 34; host++ {
		at := out(host, "1>2")
		if out(host, "3>4") != at {
			t.Errorf("host %d takes two paths", host)
		}
		seen[at]++
	}
	if len(seen) != 2 || seen[pathtest.ID("u1")] < 8 || seen[pathtest.ID("u2")] < 8 {
		t.Errorf("32 hosts do not spread: %v", seen)
	}
}
