package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// answerFrame is what the receiver of a packet sends back.
func answerFrame(frame []byte) []byte {
	v, _ := packet.Parse(frame, 1)
	k, eth, ip := &v.Key, v.Ether().Reverse(), packet.IP{Src: v.Key.Dst, Dst: v.Key.Src, TOS: v.Key.TOS}
	switch k.Proto {
	case packet.ProtoTCP:
		return packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort, Flags: packet.FlagSYN | packet.FlagACK}, nil)
	case packet.ProtoUDP:
		return packet.BuildUDP(nil, eth, ip, k.DstPort, k.SrcPort, []byte("answer"))
	case packet.ProtoICMP:
		return packet.BuildICMP(nil, eth, ip, packet.ICMP{Type: packet.ICMPEchoReply, Rest: uint32(k.DstPort) << 16}, nil)
	case packet.ProtoICMPv6:
		return packet.BuildICMP(nil, eth, ip, packet.ICMP{Type: packet.ICMPv6EchoReply, Rest: uint32(k.DstPort) << 16}, nil)
	}
	return nil
}

// answer has whoever got a packet answer it.
func (r *rig) answer(s fake.Sent) {
	r.Helper()
	if err := r.dp.Inject(s.Interface, fake.Packet{Frame: answerFrame(s.Frame)}); err != nil {
		r.Fatal(err)
	}
	r.turn()
}

// states are those of all connections.
func (r *rig) states() (all []conntrack.State) {
	r.tables.Connections(func(_ *conntrack.Conn, s conntrack.State) { all = append(all, s) })
	return all
}

// TestOneMissPerConnection: the answer meets its flow, and that it came is known once the flow's counters are read: the connection lives as
// long as one whose answer has missed.
func TestOneMissPerConnection(t *testing.T) {
	for name, c := range map[string]struct {
		network, packet string
		lives           time.Duration // after the last flow
		conns           int
	}{
		"masquerade": {gateway, aToWorld, 2 * time.Hour, 1},
		"groups":     {secured, request, 2 * time.Hour, 2},
		"udp":        {gateway, strings.Replace(aToWorld, "tcp", "udp", 1), 2 * time.Minute, 1},
		"echo":       {secured, echo, 50 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.network, Config{})
			r.in(c.packet)
			r.turn()
			if len(r.sent) != 1 || r.flows() != 2 {
				t.Fatalf("%d flows, delivered %v", r.flows(), r.got())
			}
			r.answer(r.sent[0])
			if n := r.w.Counts().In; n != 1 || len(r.sent) != 2 {
				t.Fatalf("%d misses, delivered %v", n, r.got())
			}
			r.audit()
			for _, s := range r.states() {
				if s&conntrack.Replied == 0 {
					t.Errorf("an answer is not known of: %b", s)
				}
			}
			for range 14 { // until the flows are gone, and no longer
				r.audit()
				r.advance(5 * time.Second)
			}
			if n := r.flows(); n != 0 {
				t.Fatalf("%d flows", n)
			}
			for range 8 {
				r.advance(c.lives / 8)
			}
			if n := r.tables.Stats().Connections; n != c.conns {
				t.Errorf("%d connections %s after their flows", n, c.lives)
			}
		})
	}
}

// TestUnansweredFlows: flows of answers that do not come are so many as Config says, by the port that has begun; they are no answers.
func TestUnansweredFlows(t *testing.T) {
	r := newRig(t, secured, Config{Expected: 4})
	r.in("other tcp eth=other>web ip=10.0.1.7>10.0.1.5 ports=1>80")
	for i := range 10 {
		r.in(fmt.Sprintf("cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=%d>80", 4000+i))
	}
	r.turn()
	sent := r.sent
	if n := r.flows(); n != 11+5 {
		t.Fatalf("%d flows", n)
	}
	r.audit()
	for _, s := range r.states() {
		if s != 0 {
			t.Fatalf("something is known of connections that nobody has answered: %b", s)
		}
	}
	r.answer(sent[1]) // of cli's: then there is room for one
	r.audit()
	for i := range 2 {
		r.in(fmt.Sprintf("cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=%d>80", 5000+i))
	}
	r.turn()
	if n := r.flows(); n != 11+5+3 {
		t.Errorf("%d flows", n)
	}
	for range 30 {
		r.advance(5 * time.Second)
	}
	if n := r.w.Flows().Expected(1) + r.w.Flows().Expected(2) + r.w.Flows().Expected(3); n != 0 {
		t.Errorf("%d are counted without being there", n)
	}
}

// TestExpectedFlowIsAdopted: the next agent does not take it for an answer either, and hears of answers as this one does.
func TestExpectedFlowIsAdopted(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.in(aToWorld, "a tcp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4001>80")
	r.turn()
	sent := r.sent
	r.answer(sent[0])
	before := r.dump()
	r.start(Config{})
	for left := before; len(left) > 0; r.turn() {
		left = r.w.Relearn(left)
	}
	r.w.Adopt(before)
	r.turn()
	replied := func() (n int) {
		for _, s := range r.states() {
			if s&conntrack.Replied != 0 {
				n++
			}
		}
		return n
	}
	if n := replied(); n != 1 || len(r.states()) != 2 {
		t.Errorf("%d of %d connections are answered", n, len(r.states()))
	}
	r.answer(sent[1])
	r.audit()
	if n := replied(); n != 2 {
		t.Errorf("%d connections are answered", n)
	}
	if n := r.w.Counts().In; n != 0 {
		t.Errorf("%d misses", n)
	}
}

// TestFaultInExpectedFlow: whatever goes wrong with the flow of answers, the packet that has begun the connection has ended (check of the rig).
func TestFaultInExpectedFlow(t *testing.T) {
	r := newRig(t, gateway, Config{})
	told := r.faults()
	r.in(aToWorld)
	r.turn()
	k := r.dump()[0].Key
	r.broken(func() { r.w.guardedExpect(&k, 1) })
	if len(*told) != 1 || len(r.sent) != 1 || r.flows() != 2 {
		t.Errorf("told of %d faults, %d flows, delivered %v", len(*told), r.flows(), r.got())
	}
}

// pieces of random networks: what answers may have to find back through.
var pieces = []string{
	"secure a\ngroups a open\n", "secure world\ngroups world open\n", "groups b some\n", "secure b\n",
	"masquerade r:out\n", "floating r:out 203.0.113.11 10.0.1.11\n", "floating r:out 203.0.113.12 10.0.1.10\n",
	"rule from accept connection=new\nfilter a in from\n", "rule to accept connection=return\nrule to drop\nfilter a out to\n",
	"rule post snat:203.0.113.8@5000-5100 proto=6 then=accept\nfilter r post post\n",
	"dscp a 46\n", "subnet in4 in 10.0.1.0/24 gw=10.0.1.1\n", "mtu r:out 600\n",
}

// TestAnswersAreDecidedAlike: in random networks, the flow that is installed for answers beforehand does what would be decided for the real
// answer, under the same mask, and the answer that meets it is known of.
func TestAnswersAreDecidedAlike(t *testing.T) {
	expected, met := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Replace(gateway, "masquerade r:out\nfloating r:out 203.0.113.11 10.0.1.11\n", "", 1) +
			"allow open in\nallow open out\nallow some in proto=6 ports=80\nallow some out proto=17\nallow some in proto=1\n"
		for i := range pieces {
			if rapid.Bool().Draw(rt, pieces[i]) {
				text += pieces[i]
			}
		}
		r := newRig(t, text, Config{})
		for range rapid.IntRange(6, 24).Draw(rt, "packets") {
			from := rapid.SampledFrom([]string{"a eth=a>r:in ip=10.0.1.10", "b eth=b>r:in ip=10.0.1.11", "world eth=world>r:out ip=203.0.113.9", "a eth=a>b ip=10.0.1.10"}).Draw(rt, "from")
			to := rapid.SampledFrom([]string{"203.0.113.9", "10.0.1.11", "10.0.1.10", "203.0.113.11", "203.0.113.12", "203.0.113.1"}).Draw(rt, "to")
			kind := rapid.SampledFrom([]string{"tcp", "udp", "echo"}).Draw(rt, "kind")
			port, rest, _ := strings.Cut(from, " ")
			r.in(fmt.Sprintf("%s %s %s>%s id=%d ports=%d>80", port, kind, rest, to, rapid.IntRange(1, 3).Draw(rt, "id"), rapid.IntRange(1000, 1003).Draw(rt, "port")))
			r.sent = nil
			r.turn()
			for _, s := range r.sent {
				frame := answerFrame(s.Frame)
				no := r.number(s.Interface)
				v, why := packet.Parse(frame, no)
				if frame == nil || no == 0 || why != drop.None {
					continue
				}
				f, ok := r.flow(&v.Key)
				if !ok || f.Packets > 0 {
					continue
				}
				expected++
				id, _ := r.ports.Virtual(no)
				a := r.w.Explain(id, frame)
				e, _ := r.w.Flows().Peek(&v.Key)
				if a.Result != sim.ResultForward || a.UserSpace || a.Actions != f.Actions.String() || e.Mask() != a.Mask|match.InPort {
					rt.Fatalf("%s\n%s\nis installed: %s under %s\nthe real one: %s %s, %s under %s", text, v.Key, f.Actions, e.Mask(), a.Result, a.Reason, a.Actions, a.Mask)
				}
				if !rapid.Bool().Draw(rt, "answers") {
					continue
				}
				in, got := r.w.Counts().In, len(r.sent)
				r.answer(s)
				if r.w.Counts().In != in || len(r.sent) != got+1 {
					rt.Fatalf("%s\n%s: %d misses, %d delivered", text, v.Key, r.w.Counts().In-in, len(r.sent)-got)
				}
				r.audit()
				for _, tg := range e.Kept() {
					if c, st, ok := r.tables.GetConnection(tg); ok && tg.Tuple() == c.Reply && st&conntrack.Replied == 0 {
						rt.Fatalf("%s\n%s: that %v was answered is not known", text, v.Key, c)
					}
				}
				met++
				break // r.sent has changed
			}
		}
		r.check()
	})
	if (expected < 100 || met < 30) && !testing.Short() {
		t.Errorf("%d flows expected, %d answers: the networks have become too narrow", expected, met)
	}
	t.Logf("%d flows expected, %d answers", expected, met)
}

// number is a datapath port's, by its interface.
func (r *rig) number(iface string) uint32 {
	for id, p := range r.topo.Ports {
		if p.Interface == iface {
			no, _ := r.ports.Local(id)
			return no
		}
	}
	return 0
}

func (r *rig) flow(k *match.Key) (f datapath.FlowInfo, ok bool) {
	for _, f := range r.dump() {
		if f.Key == *k {
			return f, true
		}
	}
	return f, false
}
