package worker

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

func TestGatewayIsAnsweredByTheBridge(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in("a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1")
	r.turn()
	r.expect("a < ")
	if r.flows() != 0 {
		t.Error("a flow was installed for a packet that was consumed")
	}
	if c := r.w.Counts(); c.Consumed != 1 || c.Made != 1 {
		t.Errorf("%+v", c)
	}
	r.in("a echo eth=a>r:blue ip=10.0.1.10>10.0.1.1", "a echo eth=a>r:blue ip=fd00:1::10>fd00:1::1")
	r.turn()
	r.expect("10.0.1.1 > 10.0.1.10", "fd00:1::1 > fd00:1::10")
}

func TestForwardedPacketIsSimulatedOnce(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC, aToC) // the second one races the install
	r.turn()
	r.expect("c < ", "c < ")
	if s := r.w.Flows().Stats(); r.flows() != 1 || s.ExactHits != 1 {
		t.Errorf("%d flows, %+v", r.flows(), s)
	}
	r.in(aToC)
	r.expect("c < ") // without the worker
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=1001>54")
	r.turn()
	r.expect("c < ")
	if s := r.w.Flows().Stats(); s.WildcardHits != 1 || r.flows() != 2 {
		t.Errorf("other ports: %d flows, %+v; want a wildcard hit", r.flows(), s)
	}
}

func TestTTLIsForTheSimulation(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC)
	r.turn()
	r.expect("c < ")
	r.in(aToC + " ttl=1")                                                       // a flow is there
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=7>7 ttl=1")           // a wildcard entry is there
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.99 ports=7>7 ttl=1", aToC+" ") // nothing is there
	r.turn()
	r.expect("c < ", "type 11", "type 11", "type 11")
	if r.flows() != 1 {
		t.Errorf("%d flows: one was installed for a TTL", r.flows())
	}
}

// TestLengthIsForTheSimulation: whatever a short packet has begun, the sender of a long one is told the least MTU on its way, and short ones go on.
func TestLengthIsForTheSimulation(t *testing.T) {
	const far = `
bridge in
bridge out
router near
router next
vm a in 02:00:00:00:00:0a 10.0.1.10 fd00:1::10
vm c out 02:00:00:00:00:0c 10.0.2.10 fd00:2::10
link in near=10.0.1.1/24,fd00:1::1/64
link near=10.9.0.1/24,fd00:9::1/64 next=10.9.0.2/24,fd00:9::2/64
link out next=10.0.2.1/24,fd00:2::1/64
route near 0.0.0.0/0 via 10.9.0.2 out near:next
route near ::/0 via fd00:9::2 out near:next
route next 10.0.1.0/24 via 10.9.0.1 out next:near
route next fd00:1::/64 via fd00:9::1 out next:near
mtu near:next 1400
mtu next:out 1300
`
	for _, c := range []struct{ name, from, error string }{
		{"IPv4", "ip=10.0.1.10>10.0.2.10", "type 3 code 4 rest 0x514"},
		{"IPv6", "ip=fd00:1::10>fd00:2::10", "type 2 code 0 rest 0x514"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, far, Config{})
			udp, tcp := "a udp eth=a>near:in "+c.from+" ports=1000>53", "a tcp eth=a>near:in "+c.from+" ports=1000>80 flags=A"
			r.in(udp, tcp)
			r.turn()
			r.expect("c < ", "c < ")
			r.in(udp+" len=1240", tcp+" len=9000 gso=1200") // all of them flows'
			r.expect("c < ", "c < ")
			flows := r.flows()
			r.in(udp + " len=1300") // a flow is there
			r.turn()
			r.expect(c.error)
			r.in("a udp eth=a>near:in " + c.from + " ports=1001>54 len=1300") // a wildcard entry is there
			r.turn()
			r.expect(c.error)
			r.in(tcp + " len=9000 gso=1280")
			r.turn()
			r.expect(c.error)
			if n := r.w.Counts().Dropped[drop.ExceedsMTU]; r.flows() != flows || n != 3 {
				t.Errorf("%d flows, were %d; %d too long", r.flows(), flows, n)
			}
			r.in(udp, tcp)
			r.expect("c < ", "c < ")                                                                                      // without the worker, as before
			r.in("a udp eth=a>near:in "+c.from+" ports=1002>55 len=1300", "a udp eth=a>near:in "+c.from+" ports=1002>55") // nothing is there of the kernel's
			r.turn()
			r.expect(c.error, "c < ")
		})
	}
}

// TestLengthRacesTheInstall: a long packet that missed before the flow of a short one was there is not that one's either.
func TestLengthRacesTheInstall(t *testing.T) {
	r := newRig(t, twoSubnets+"mtu r:red 1300\n", Config{})
	r.in(aToC, aToC+" len=1300", aToC)
	r.turn()
	r.expect("c < ", "type 3 code 4 rest 0x514", "c < ")
	if n := r.flows(); n != 1 {
		t.Errorf("%d flows", n)
	}
}

func TestParkedUntilTheNeighbourAnswers(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	toD := "a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2 len="
	r.in(toD+"60", toD+"61", toD+"62")
	r.turn()
	r.expect("c < ", "d < ") // one request, flooded
	if c := r.w.Counts(); c.Waiting != 3 {
		t.Fatalf("%d wait, want the packet and two duplicates", c.Waiting)
	}
	if a := r.policy.Account(); a.InFlight != 0 {
		t.Errorf("%d tokens are held by packets that wait", a.InFlight)
	}
	r.in("d arp op=reply eth=02:00:00:00:00:0d>r:red ip=10.0.2.20>10.0.2.1")
	r.turn()
	for i, s := range r.sent {
		if want := 14 + 20 + 8 + 60 + i; len(s.Frame) != want || s.Interface != "tap-d" {
			t.Errorf("%d: %d bytes to %s, want %d to d: out of order", i, len(s.Frame), s.Interface, want)
		}
	}
	if len(r.sent) != 3 {
		t.Errorf("%d delivered, want 3", len(r.sent))
	}
	if c := r.w.Counts(); c.Waiting != 0 {
		t.Errorf("%d still wait", c.Waiting)
	}
}

func TestParkedEndsAfterFiveSeconds(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2")
	r.turn()
	r.got()
	r.advance(5 * time.Second)
	if c := r.w.Counts(); c.Waiting != 0 || c.Dropped[drop.ParkTimeout] != 1 {
		t.Errorf("%d wait, %d timed out", c.Waiting, c.Dropped[drop.ParkTimeout])
	}
}

func TestParkedAreBoundedPerPort(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	for i := range 200 {
		r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2." + strconv.Itoa(20+i) + " ports=1>2")
		r.turn()
	}
	if c := r.w.Counts(); c.Waiting != 128 || c.Dropped[drop.ParkOverflow] != 72 {
		t.Errorf("%d wait, %d refused", c.Waiting, c.Dropped[drop.ParkOverflow])
	}
}

func itoa(i int) string {
	return string([]byte{byte('0' + i/100), byte('0' + i/10%10), byte('0' + i%10)})
}

func TestChangeInvalidatesWhatDependsOnIt(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC, "a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2")
	r.turn()
	r.expect("c < ", "b < ")
	r.w.Do(func() { r.w.Invalidate([]tag.Tag{{Kind: tag.Device, ID: pathtest.ID("r")}}) })
	r.turn()
	if r.flows() != 1 {
		t.Errorf("%d flows, want the one that does not cross the router", r.flows())
	}
	r.w.Do(func() { r.w.SetPorts(r.ports.Without(pathtest.ID("b"))) })
	r.w.Do(func() { r.w.Invalidate([]tag.Tag{{Kind: tag.Binding, ID: pathtest.ID("b")}}) })
	r.turn()
	if r.flows() != 0 {
		t.Error("the flow to a port that is gone stays")
	}
	r.in("a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2")
	r.turn()
	r.expect()
	if c := r.w.Counts(); c.Dropped[drop.Inactive] != 1 {
		t.Errorf("%+v", c)
	}
}

func TestMovedMAC(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in("d udp eth=02:00:00:00:00:99>c ip=10.0.2.99>10.0.2.10 ports=1>2")
	r.in("c udp eth=c>02:00:00:00:00:99 ip=10.0.2.10>10.0.2.99 ports=2>1")
	r.turn()
	r.expect("c < ", "d < ")
	r.in("c udp eth=02:00:00:00:00:99>broadcast ip=10.0.2.99>10.0.2.255 ports=1>2") // it is behind c now
	r.turn()
	r.expect("d < ")
	if c := r.w.Counts(); c.Dropped[drop.Hairpin] != 0 {
		t.Fatal("setup")
	}
	r.in("c udp eth=c>02:00:00:00:00:99 ip=10.0.2.10>10.0.2.99 ports=2>1")
	r.turn()
	r.expect()
	if c := r.w.Counts(); c.Dropped[drop.Hairpin] != 1 {
		t.Error("the flow to the MAC's old place is still there")
	}
}

func TestIdleFlowsGo(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC)
	r.turn()
	r.expect("c < ")
	for range 10 { // busy: reported by the audit
		r.in(aToC)
		r.advance(20 * time.Second)
		r.audit()
	}
	if r.flows() != 1 {
		t.Fatal("a busy flow has gone")
	}
	for range 5 {
		r.advance(20 * time.Second)
		r.audit()
	}
	if r.flows() != 0 {
		t.Error("an idle flow stays")
	}
}

func (r *rig) audit() {
	var fs []datapath.FlowInfo
	if err := r.dp.DumpFlows(func(f *datapath.FlowInfo) bool { fs = append(fs, *f); return true }); err != nil {
		r.Fatal(err)
	}
	r.w.Audit(fs)
	r.turn()
}

func TestFaultsOfTheDatapath(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	broken := errors.New("broken")
	r.dp.SetFaults(fake.Faults{
		Execute: func(*datapath.Exec) error { return broken },
		PutFlow: func(int, *datapath.Flow) error { return broken },
	})
	r.in(aToC, aToC)
	r.turn()
	r.expect()
	if c := r.w.Counts(); c.Dropped[drop.ExecuteErr] != 2 || !errors.Is(r.w.Err(), broken) {
		t.Errorf("%d execute errors, last %v", c.Dropped[drop.ExecuteErr], r.w.Err())
	}
	r.dp.SetFaults(fake.Faults{})
	r.in(aToC)
	r.turn()
	r.expect("c < ")
	if r.flows() != 1 {
		t.Errorf("%d flows after the datapath recovered", r.flows())
	}
}

func TestAdoption(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC, "c udp eth=c>r:red ip=10.0.2.10>10.0.1.10 ports=53>1000", "a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2")
	r.turn()
	if got := r.got(); len(got) != 3 {
		t.Fatalf("delivered %q", got)
	}
	before := r.dump()

	// The agent dies. Meanwhile b is unbound, and somebody has left a flow that nobody would decide.
	delete(r.topo.Ports, pathtest.ID("b"))
	stray := datapath.Flow{Key: match.Key{InPort: 1, EthType: 0x88cc}}
	if _, err := r.dp.PutFlows([]datapath.Flow{stray}); err != nil {
		t.Fatal(err)
	}
	r.start(Config{})
	puts := r.dp.Counts().FlowsPut
	if left := r.w.Adopt(r.dump()); len(left) != 0 {
		t.Errorf("%d flows are undecided", len(left))
	}
	r.turn()
	if n := r.flows(); n != 3 { // two forward, one to b is a drop or a flood now
		t.Errorf("%d flows after adoption, before %d", n, len(before))
	}
	if s := r.w.Flows().Stats(); s.Adopted != 2 {
		t.Errorf("adopted %d as they were, want 2; %d put again", s.Adopted, r.dp.Counts().FlowsPut-puts)
	}
	r.in(aToC)
	r.expect("c < ") // in the kernel, all the while
}

// TestAdoptionBounds: flows of an agent that checked no lengths get their bounds with the next one, while packets go on.
func TestAdoptionBounds(t *testing.T) {
	r := newRig(t, twoSubnets+"mtu r:red 1300\n", Config{})
	r.in(aToC)
	r.turn()
	r.expect("c < ")
	f := r.dump()[0]
	if f.Actions.MaxLen() != 1300 {
		t.Fatalf("%v", f.Actions)
	}
	if _, err := r.dp.PutFlows([]datapath.Flow{{Key: f.Key, Actions: f.Actions[1:]}}); err != nil {
		t.Fatal(err)
	}
	r.start(Config{})
	r.w.Adopt(r.dump())
	r.turn()
	r.in(aToC)
	r.expect("c < ") // in the kernel
	if n := r.dump()[0].Actions.MaxLen(); n != 1300 {
		t.Errorf("a flow for %d bytes", n)
	}
	r.in(aToC + " len=1300")
	r.turn()
	r.expect("type 3 code 4 rest 0x514")
}

func (r *rig) dump() (fs []datapath.FlowInfo) {
	err := r.dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		g := *f
		g.Actions = append(g.Actions[:0:0], g.Actions...)
		fs = append(fs, g)
		return true
	})
	if err != nil {
		r.Fatal(err)
	}
	return fs
}

func TestLiveTraceShowsTheStagesTaken(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	var trees []*trace.Node
	r.w.Watch(&Watcher{Port: pathtest.ID("a"), Seen: func(n *trace.Node) bool { trees = append(trees, n); return len(trees) < 2 }})
	r.in("c udp eth=c>r:red ip=10.0.2.10>10.0.1.10 ports=53>1000", aToC, "a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1", aToC)
	r.turn()
	if len(trees) != 2 {
		t.Fatalf("%d trees, want the first two of port a", len(trees))
	}
	var s strings.Builder
	trees[0].Render(&s)
	at := 0
	for _, stage := range []string{"datapath", "upcall", "flow", "prep", "sim", "xlate", "worker", "install", "execute"} {
		i := strings.Index(s.String()[at:], stage)
		if i < 0 {
			t.Fatalf("no %s after the stages before it in:\n%s", stage, &s)
		}
		at += i
	}
	if trees[1].Find(func(n *trace.Node) bool { return n.What == "generated packet" }) == nil {
		t.Error("the ARP reply is not in the tree of its request")
	}
}

func TestExplainHasNoEffect(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	before, counts := r.tables.Stats(), r.w.Counts()
	for line, want := range map[string]sim.Result{
		aToC: sim.ResultForward,
		"a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1":                  sim.ResultConsumed,
		"a udp eth=a>r:blue ip=10.0.1.10>10.9.9.9 ports=1>2":           sim.ResultErrorDrop,
		"a udp eth=a>r:blue ip=10.0.1.10>10.0.2.99 ports=1>2":          sim.ResultNotYet,
		"d udp eth=02:00:00:00:00:77>c ip=10.0.2.9>10.0.2.9 ports=1>2": sim.ResultForward,
	} {
		in := r.topo.MustInject(line)
		if a := r.w.Explain(in.Port, in.View.Frame); a.Result != want || a.Tree == nil {
			t.Errorf("%s: %v, want %v", line, a.Result, want)
		}
	}
	r.turn()
	if r.flows() != 0 || r.tables.Stats() != before || r.w.Counts() != counts || len(r.sent) != 0 {
		t.Error("explaining had an effect")
	}
}

func TestUnboundPort(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.w.SetPorts(r.ports.Without(pathtest.ID("a")))
	r.in(aToC)
	r.turn()
	if c := r.w.Counts(); c.Dropped[drop.NotBound] != 1 {
		t.Errorf("%+v", c)
	}
}

// The message of a router further on cannot wait, but it has the sender's MAC asked for: the next one gets through.
func TestMessageOfTheNextRouterIsResolved(t *testing.T) {
	r := newRig(t, `
bridge net
router near
router far
vm a net
link net near=10.0.1.1/24
link near=192.0.2.1/30 far=192.0.2.2/30
route near 0.0.0.0/0 via 192.0.2.2 out near:far
route far 10.0.1.0/24 via 192.0.2.1 out far:near
`, Config{})
	const lost = "a udp eth=02:00:00:00:00:0a>near:net ip=10.0.1.10>9.9.9.9 ports=1>2"
	r.in(lost)
	r.turn()
	r.expect("arp who has 10.0.1.10, tell 10.0.1.1")
	r.in("a arp op=reply eth=02:00:00:00:00:0a>near:net ip=10.0.1.10>10.0.1.1")
	r.turn()
	r.advance(6 * time.Second) // the drop flow has gone
	r.in(lost)
	r.turn()
	r.expect("192.0.2.2 > 10.0.1.10 ttl 63 icmp type 3 code 0")
}
