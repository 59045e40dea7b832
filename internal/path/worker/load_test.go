package worker

import (
	"maps"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// loader holds a part of a network, and loads more of it when it is asked.
type loader struct {
	*rig
	part  view.Snapshot
	asked []view.Thing
	slow  bool // what is asked for does not come
	full  bool // nothing may be loaded
}

// newLoader makes a rig whose worker knows the port a alone.
func newLoader(t *testing.T, network string) *loader {
	l := &loader{rig: newRig(t, network, Config{})}
	l.part = view.Snapshot{Partial: true}
	l.w.load = func(_ uuid.UUID, what []view.Thing) bool {
		if l.full {
			return false
		}
		l.asked = append(l.asked, what...)
		if !l.slow {
			l.give(what...)
		}
		return true
	}
	l.give(view.Thing{Kind: view.ThingPort, ID: pathtest.ID("a")})
	l.asked = nil
	return l
}

// turn goes on until nothing more is asked for.
func (l *loader) turn() {
	l.Helper()
	for n := -1; n != len(l.asked); {
		n = len(l.asked)
		l.rig.turn()
	}
}

// give has the worker know more.
func (l *loader) give(what ...view.Thing) {
	s, whole := l.part, &l.topo.Snapshot
	s.Absent = maps.Clone(s.Absent)
	var tags []tag.Tag
	for _, t := range what {
		there := false
		switch t.Kind {
		case view.ThingPort:
			s.Ports, there = with(s.Ports, whole.Ports, t.ID)
		case view.ThingBridge:
			s.Bridges, there = with(s.Bridges, whole.Bridges, t.ID)
		case view.ThingRouter:
			s.Routers, there = with(s.Routers, whole.Routers, t.ID)
		case view.ThingChain:
			s.Chains, there = with(s.Chains, whole.Chains, t.ID)
		case view.ThingSecurity:
			s.Security, there = with(s.Security, whole.Security, t.ID)
		case view.ThingGroup:
			s.Groups, there = with(s.Groups, whole.Groups, t.ID)
		}
		if !there {
			if s.Absent == nil {
				s.Absent = make(map[view.Thing]struct{})
			}
			s.Absent[t] = struct{}{}
		}
		tags = append(tags, t.Tag())
	}
	l.part = s
	l.w.Do(func() {
		l.w.SetTopology(&s)
		l.w.Invalidate(tags)
	})
}

func with[T any](part, whole map[uuid.UUID]*T, id uuid.UUID) (map[uuid.UUID]*T, bool) {
	v := whole[id]
	if v == nil {
		return part, false
	}
	part = maps.Clone(part)
	if part == nil {
		part = make(map[uuid.UUID]*T)
	}
	part[id] = v
	return part, true
}

// A packet waits until what it needs of the network is loaded, and goes on. A router's request, a flood, takes its ports at once.
func TestPacketsWaitForTheNetwork(t *testing.T) {
	l := newLoader(t, twoSubnets)
	l.in(aToC)
	l.turn()
	l.expect("c < ")
	if c := l.w.Counts(); c.Waiting != 0 {
		t.Errorf("%d wait", c.Waiting)
	}
	n := len(l.asked)
	l.in(aToC + " ")
	l.turn()
	l.expect("c < ")
	if len(l.asked) != n {
		t.Errorf("asked again: %v", l.asked[n:])
	}
	// Nobody knows where d is: the router asks on the whole bridge, which nobody has loaded all of.
	l.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2")
	l.turn()
	l.expect("c < ", "d < ")
	l.in("d arp op=reply eth=02:00:00:00:00:0d>r:red ip=10.0.2.20>10.0.2.1")
	l.turn()
	l.expect("d < ")
}

// What does not come is given up; what is too much is dropped by name.
func TestNetworkThatDoesNotCome(t *testing.T) {
	l := newLoader(t, twoSubnets)
	l.slow = true
	l.in(aToC)
	l.turn()
	l.expect()
	if c := l.w.Counts(); c.Waiting != 1 {
		t.Fatalf("%d wait", c.Waiting)
	}
	l.advance(5 * time.Second)
	if c := l.w.Counts(); c.Waiting != 0 || c.Dropped[drop.ParkTimeout] != 1 {
		t.Errorf("%d wait, %d timed out", c.Waiting, c.Dropped[drop.ParkTimeout])
	}
	l.full = true
	l.in(aToC)
	l.turn()
	if c := l.w.Counts(); c.Waiting != 0 || c.Dropped[drop.TooManyWaits] != 1 {
		t.Errorf("%d wait, %d refused", c.Waiting, c.Dropped[drop.TooManyWaits])
	}
}

// What is known not to exist is an answer, too.
func TestAbsentIsKnown(t *testing.T) {
	l := newLoader(t, twoSubnets)
	delete(l.topo.Routers, pathtest.ID("r"))
	l.in(aToC)
	l.turn()
	l.expect()
	if c := l.w.Counts(); c.Waiting != 0 || c.Dropped[drop.Unplugged] != 1 {
		t.Errorf("%d wait, dropped %v", c.Waiting, c.Dropped)
	}
}

// A request of a router that waits for the network is given up like a packet.
func TestLatePacketsAreBounded(t *testing.T) {
	l := newLoader(t, twoSubnets)
	l.give(view.Thing{Kind: view.ThingBridge, ID: pathtest.ID("blue")}, view.Thing{Kind: view.ThingRouter, ID: pathtest.ID("r")})
	for id, p := range l.topo.Ports { // all but those of VMs on the other bridge
		if p.Bridge != pathtest.ID("red") || p.Peer != uuid.Nil {
			l.give(view.Thing{Kind: view.ThingPort, ID: id})
		}
	}
	l.give(view.Thing{Kind: view.ThingBridge, ID: pathtest.ID("red")})
	l.turn()
	l.slow = true
	for i := range 2 * maxLate {
		l.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2." + strconv.Itoa(20+i) + " ports=1>2")
		l.turn()
	}
	if len(l.w.loading) != maxLate {
		t.Errorf("%d packets of devices wait", len(l.w.loading))
	}
	l.advance(3 * time.Second)
	if len(l.w.loading) != 0 {
		t.Errorf("%d packets of devices still wait", len(l.w.loading))
	}
}

// A port goes while an address on its link is being asked for. The asking ends: who waits for the address has the port loaded, and asks anew.
func TestAskingEndsWithItsPort(t *testing.T) {
	l := newLoader(t, twoSubnets)
	port, d := pathtest.ID("r:red"), match.AddrFrom(netip.MustParseAddr("10.0.2.20"))
	l.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2")
	l.turn()
	l.expect("c < ", "d < ")
	l.part.Ports = maps.Clone(l.part.Ports)
	delete(l.part.Ports, port)
	l.give()
	l.turn()
	l.w.Ask(port, d)
	l.turn()
	l.expect("c < ", "d < ")
	l.w.Ask(port, d)
	l.turn()
	l.expect("c < ", "d < ")
	l.in("d arp op=reply eth=02:00:00:00:00:0d>r:red ip=10.0.2.20>10.0.2.1")
	l.turn()
	l.expect("d < ")
	delete(l.part.Ports, port)
	l.give()
	l.w.Ask(port, d) // nobody asks, and nobody waits
	l.turn()
	l.expect()
}

// A foreign flow is adopted once what it needs of the network is loaded. One that waits for a neighbour is not, and nobody is asked: the answer
// would come to the earlier agent, and the packets that wait for it later would wait until it is time to ask again.
func TestForeignFlowsWaitForTheNetworkAlone(t *testing.T) {
	toD := "a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2"
	l := newLoader(t, twoSubnets)
	l.slow = true
	foreign := func(line string) []datapath.FlowInfo {
		v := l.topo.MustInject(line).View
		v.Key.InPort, _ = l.ports.Local(pathtest.ID("a"))
		return []datapath.FlowInfo{{Key: v.Key, Foreign: true}}
	}
	l.turn()
	all := append(foreign(aToC), foreign(toD)...)
	for _, see := range []func([]datapath.FlowInfo) []datapath.FlowInfo{l.w.Relearn, l.w.Adopt} {
		left, tries := see(all), 0
		for ; len(left) > 0 && tries < 20; tries++ {
			l.give(l.asked...)
			l.rig.turn()
			left = see(left)
		}
		if len(left) > 0 {
			t.Fatalf("still undecided: %v", left)
		}
	}
	if len(l.asked) == 0 {
		t.Fatal("nothing had to be loaded")
	}
	l.rig.turn()
	l.expect() // no request
	if fs := l.dump(); len(fs) != 1 || fs[0].Key.Dst != l.topo.MustInject(aToC).View.Key.Dst {
		t.Errorf("flows: %v", fs)
	}
	l.slow = false
	l.in(toD)
	l.turn()
	l.expect("c < ", "d < ")
}
