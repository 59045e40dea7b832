package worker

import (
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

const ruled = `
bridge blue
vm a blue 02:00:00:00:00:0a 10.0.1.10
vm b blue 02:00:00:00:00:0b 10.0.1.11
rule c continue log proto=17
rule c drop proto=6
rule c accept src=10.0.1.0/24
filter a in c
`

// counted gives the rules of a chain their counters, as the mirror does.
func counted(r *rig, chain string) []*view.RuleCounters {
	var list []*view.RuleCounters
	rules := r.topo.Chains[pathtest.ID(chain)].Rules
	for i := range rules {
		rules[i].Counters = new(view.RuleCounters)
		list = append(list, rules[i].Counters)
	}
	return list
}

// report has the worker look at what the datapath has counted.
func (r *rig) report() {
	r.w.Audit(r.dump())
	r.turn()
}

// TestRulesCountAllPackets: those that are simulated, those of a wildcard entry, and those that the datapath switches.
func TestRulesCountAllPackets(t *testing.T) {
	r := newRig(t, ruled, Config{})
	rules := counted(r, "c")
	udp, tcp := "a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2 len=100", "a tcp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2"
	for range 3 {
		r.in(udp)
		r.turn()
	}
	r.in("a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>3 len=100") // of the same entry: not simulated
	r.turn()
	for range 5 {
		r.in(tcp) // dropped: by the datapath, from the second on
		r.turn()
	}
	r.report()
	// Of what the wildcard table has answered only the number is known.
	for i, want := range [][3]uint64{{1, 4, 3 * 142}, {1, 5, 5 * 54}, {1, 4, 3 * 142}} {
		if c := rules[i]; [3]uint64{c.Hits.Load(), c.Packets.Load(), c.Bytes.Load()} != want {
			t.Errorf("rule %d: %d hits, %d packets, %d bytes; want %v", i+1, c.Hits.Load(), c.Packets.Load(), c.Bytes.Load(), want)
		}
	}
	r.report()
	if n := rules[0].Packets.Load(); n != 4 {
		t.Errorf("counted again: %d", n)
	}
	if n := len(r.w.passed.lists); n != 2 {
		t.Errorf("%d lists", n)
	}
	// Nothing is kept for flows that are gone.
	no, _ := r.ports.Local(pathtest.ID("a"))
	r.w.flows.InvalidatePort(no)
	if n, free := len(r.w.passed.number), len(r.w.passed.free); n != 0 || free != 2 {
		t.Errorf("%d lists are left, %d are free", n, free)
	}
}

// TestRuleLog: what rules that log have seen comes out in order, as the packet came, bounded for each rule and port.
func TestRuleLog(t *testing.T) {
	r := newRig(t, ruled, Config{})
	r.in("a udp vlan=5 eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2", "a tcp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2")
	r.turn()
	var seen []RuleEvent
	drain := func() { r.w.RuleLog().Drain(func(e *RuleEvent) { seen = append(seen, *e) }) }
	drain()
	if len(seen) != 1 {
		t.Fatalf("%+v", seen)
	}
	e := seen[0]
	if e.Chain.Name != "c" || e.Rule.Position != 1 || e.Place != "inbound filter" || e.Device != "a" || e.Port != pathtest.ID("a") ||
		e.Src.String() != "10.0.1.10" || e.DstPort != 2 || e.Proto != 17 || e.VLAN != 5|match.VLANPresent {
		t.Errorf("%+v", e)
	}
}

// TestRuleLogIsBounded: by its size, and for each rule and port by a rate.
func TestRuleLogIsBounded(t *testing.T) {
	var l RuleLog
	n, now := 0, int64(1)
	drain := func() int {
		n = 0
		l.Drain(func(*RuleEvent) { n++ })
		return n
	}
	rule := func(i byte) *sim.Logged { return &sim.Logged{Rule: &view.Rule{ID: uuid.UUID{15: i}}} }
	for range 100 {
		l.add(uuid.UUID{15: 1}, rule(1), now)
	}
	if drain() != ruleBurst || l.Lost() != 100-ruleBurst {
		t.Errorf("%d at once, %d lost", n, l.Lost())
	}
	l.add(uuid.UUID{15: 2}, rule(1), now)
	l.add(uuid.UUID{15: 1}, rule(2), now)
	if drain() != 2 {
		t.Errorf("another port or rule has %d", n)
	}
	for range 100 {
		now += 1e9 / 100
		l.add(uuid.UUID{15: 1}, rule(1), now)
	}
	if drain() != ruleRate {
		t.Errorf("%d in a second", n)
	}
	lost := l.Lost()
	for i := range 2 * ruleLogSize {
		now += 1e9
		l.add(uuid.UUID{15: 1}, rule(byte(i)), now)
	}
	if drain() != ruleLogSize || l.Lost() != lost+ruleLogSize {
		t.Errorf("%d in the ring, %d lost", n, l.Lost()-lost)
	}
	if testing.AllocsPerRun(100, func() { now += 1e9; l.add(uuid.UUID{15: 1}, rule(1), now); drain() }) > 2 { // the arguments
		t.Error("allocates")
	}
}
