package worker

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

const gateway = `
bridge in
router r
vm a in 02:00:00:00:00:0a 10.0.1.10
vm b in 02:00:00:00:00:0b 10.0.1.11
link in r=10.0.1.1/24
bridge out
vm world out 02:00:00:00:00:0c 203.0.113.9
link out r=203.0.113.1/24
masquerade r:out
floating r:out 203.0.113.11 10.0.1.11
`

const aToWorld = "a tcp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4000>80"

// answers has the world answer the last packet that it got.
func (r *rig) answers() {
	r.Helper()
	v, _ := packet.Parse(r.sent[len(r.sent)-1].Frame, 1)
	k := &v.Key
	r.sent = nil
	frame := packet.BuildTCP(nil, v.Ether().Reverse(), packet.IP{Src: k.Dst, Dst: k.Src}, packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort}, nil)
	if err := r.dp.Inject("tap-world", fake.Packet{Frame: frame}); err != nil {
		r.Fatal(err)
	}
	r.turn()
}

func TestMasquerade(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.in(aToWorld)
	r.turn()
	if len(r.sent) != 1 {
		t.Fatalf("delivered %v", r.got())
	}
	r.answers()
	r.expect("a < ac")
	if n := r.tables.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
	if c := r.w.Counts(); c.Dropped != [drop.NumReasons]uint64{} {
		t.Errorf("dropped: %v", c.Dropped)
	}
	// An established connection outlives its flows.
	r.advance(3 * time.Minute)
	if n := r.flows(); n != 0 {
		t.Errorf("%d flows", n)
	}
	if n := r.tables.Stats().Connections; n != 1 {
		t.Errorf("%d connections after its flows have gone", n)
	}
}

// TestTCPReset: the connection goes, and with it the flows, once RST was seen and nothing came after it.
func TestTCPReset(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.in(aToWorld)
	r.turn()
	r.answers()
	flows := r.dump()
	for i := range flows {
		flows[i].TCPFlags = packet.FlagRST
	}
	r.w.Audit(flows)
	if n := r.tables.Stats().Connections; n != 1 {
		t.Fatalf("%d connections: the flow was not idle yet", n)
	}
	for i := range flows {
		flows[i].Idle = 10 * time.Second
	}
	r.w.Audit(flows)
	r.turn()
	if n, f := r.tables.Stats().Connections, r.flows(); n != 0 || f != 0 {
		t.Errorf("%d connections, %d flows", n, f)
	}
}

// TestConnectionsAreRelearnt: an agent that finds flows translates their connections as they were.
func TestConnectionsAreRelearnt(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.in(aToWorld, "a tcp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4001>80")
	r.turn()
	r.answers()
	before := r.dump()
	if len(before) != 4 { // one is of answers that have not come
		t.Fatalf("%d flows", len(before))
	}
	r.start(Config{})
	for left := before; len(left) > 0; r.turn() {
		left = r.w.Relearn(left)
	}
	if left := r.w.Adopt(before); len(left) != 0 {
		t.Errorf("undecided: %v", left)
	}
	r.turn()
	if n := r.tables.Stats().Connections; n != 2 {
		t.Errorf("%d connections", n)
	}
	after := map[string]string{}
	for _, f := range r.dump() {
		after[f.Key.String()] = f.Actions.String()
	}
	for _, f := range before {
		if got := after[f.Key.String()]; got != f.Actions.String() {
			t.Errorf("%s: %s, was %s", f.Key, got, f.Actions)
		}
	}
	if s := r.w.Flows().Stats(); s.Adopted != 4 {
		t.Errorf("%d flows adopted", s.Adopted)
	}
}

// TestTooManyConnections: a port beyond its bound is told apart by name.
func TestTooManyConnections(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.change = func(s *state.Config) { s.Conntrack.MaxPerOwner = 1 }
	r.start(Config{})
	r.in(aToWorld, strings.Replace(aToWorld, "4000", "4001", 1))
	r.turn()
	if n := r.w.Counts().Dropped[drop.TooManyConns]; n != 1 {
		t.Errorf("%d dropped", n)
	}
}

// A flow that is decided otherwise than by the agent that has left it, and now would be part of a connection that does not exist yet, is not
// installed without that: its answers would not be known.
func TestAdoptedFlowBeginsNoConnection(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.in(aToWorld)
	r.turn()
	left := r.dump()
	for i := range left {
		left[i].Actions = nil
		if _, err := r.dp.PutFlows([]datapath.Flow{{Key: left[i].Key}}); err != nil {
			t.Fatal(err)
		}
	}
	r.sent = nil
	r.start(Config{})
	for again := left; len(again) > 0; r.turn() {
		again = r.w.Relearn(again)
	}
	r.w.Adopt(left)
	r.turn()
	r.in(aToWorld)
	r.turn()
	if len(r.sent) != 1 || r.tables.Stats().Connections != 1 {
		t.Fatalf("delivered %v, %d connections", r.got(), r.tables.Stats().Connections)
	}
	r.answers()
	r.expect("a < ac")
}

// A packet that comes back to the bridge which has just learnt its source from it is not flooded there by its flow for ever.
func TestFlowKnowsWhatItsPacketTaught(t *testing.T) {
	r := newRig(t, `
bridge in
router r
vm b in
vm c in 02:00:00:00:00:0c 10.0.1.12
link in r=10.0.1.1/24
bridge out
link out r=203.0.113.1/24
floating r:out 203.0.113.11 10.0.1.11
`, Config{})
	mac, addr := match.MAC{2, 5: 0xb}, match.AddrFrom(netip.MustParseAddr("10.0.1.11"))
	r.tables.LearnNeighbour(pathtest.ID("r:in"), addr, mac, pathtest.ID("b")) // which is remembered for longer than its MAC's port
	r.in("b udp eth=02:00:00:00:00:0b>r:in ip=10.0.1.11>203.0.113.11 ports=1>2")
	r.turn()
	for _, f := range r.dump() {
		outputs := 0
		for _, a := range f.Actions {
			if a.Op == action.Output {
				outputs++
			}
		}
		if outputs != 1 {
			t.Errorf("%s goes to %d ports: %s", f.Key, outputs, f.Actions)
		}
	}
	if got := r.got(); len(got) != 1 {
		t.Errorf("delivered %q", got)
	}
}

// TestBothPortsKnow: what both ports of a connection know of it is begun together, by a simulation and by a decision that is recalled, and within the
// sender's bound or not at all.
func TestBothPortsKnow(t *testing.T) {
	const bound = 9 // of connections: one more would be half of a fifth
	r := newRigWith(t, secured, Config{}, func(c *state.Config) { c.Conntrack.MaxPerOwner = bound })
	for i := range 6 {
		r.in(from(1000+i, ""))
		r.turn()
	}
	if n := r.tables.Stats().Connections; n != bound-1 || len(r.sent) != n/2 {
		t.Errorf("%d connections, %d delivered", n, len(r.sent))
	}
	if n := r.w.Counts().Dropped[drop.TooManyConns]; n != 2 {
		t.Errorf("%d dropped", n)
	}
}

// TestOnePortKnows: a port that has moved here has brought what it knew; the other port's half begins by itself.
func TestOnePortKnows(t *testing.T) {
	r := newRig(t, secured, Config{})
	for i := range 4 {
		in := r.topo.MustInject(from(1000+i, ""))
		v, _ := packet.Parse(in.View.Frame, 1)
		tu, _ := tupleOf(&v.Key)
		c := conntrack.Conn{Kind: tag.Connection, Device: pathtest.ID("web"), Orig: tu, Reply: tu.Reverse(), Owner: pathtest.ID("cli")}
		if i%2 == 1 {
			c.Device = pathtest.ID("cli")
		}
		r.tables.AddConnection(c)
		r.in(from(1000+i, ""))
		r.turn()
	}
	if n := r.tables.Stats().Connections; n != 8 || len(r.sent) != 4 || r.w.recall.made != 0 {
		t.Errorf("%d connections, %d delivered, %d recalled", n, len(r.sent), r.w.recall.made)
	}
}
