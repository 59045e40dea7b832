package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

const gateway = `
bridge in
router r
vm va in 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb in 02:00:00:00:00:0b 10.0.1.6
vm vc in 02:00:00:00:00:0c 10.0.1.7
link in r=10.0.1.1/24,fd01::1/64
uplink up r 02:00:00:00:01:00 203.0.113.2/24 2001:db8::2/64
route r 0.0.0.0/0 via 203.0.113.1 out up
route r ::/0 via 2001:db8::1 out up
neighbour up 203.0.113.1 02:00:00:00:01:01
neighbour up 203.0.113.50 02:00:00:00:01:50
neighbour up 2001:db8::1 02:00:00:00:01:01
masquerade up
floating up 203.0.113.10 10.0.1.6
floating up 203.0.113.11 10.0.1.7
floating up 2001:db8::10 fd01::5
`

// guarded is gateway with a VM that only what it began gets through to.
const guarded = gateway + `
rule from accept connection=new
filter va in from
rule to accept connection=return
rule to drop
filter va out to
`

// world simulates like a worker: proposals are committed, ports leased.
type world struct {
	t         testing.TB
	topo      *pathtest.Topology
	c         sim.Context
	datagrams uint32 // sent in fragments
}

func (w *world) send(in *pathtest.Injection) *sim.Context {
	for range 3 {
		w.topo.Simulate(&w.c, in)
		if w.c.Result == sim.ResultNotYet {
			w.topo.State.Lease(&w.c)
			continue
		}
		if w.c.Result == sim.ResultForward && !w.topo.State.Commit(&w.c) {
			w.t.Fatalf("what was proposed cannot be committed: %s\n%+v", in.View.Key.Text(match.All), w.c.Learn)
		}
		return &w.c
	}
	return &w.c
}

// outcome is where the packet goes and what it looks like there.
func (w *world) outcome(t interface{ Fatalf(string, ...any) }, in *pathtest.Injection) (port string, v packet.View) {
	c := w.send(in)
	if c.Result != sim.ResultForward {
		t.Fatalf("%s %s: %s", c.Result, c.Reason, in.View.Key.Text(match.All))
	}
	frame := slices.Clone(in.View.Frame)
	if c.Quoted.Proto != 0 && !packet.RewriteQuoted(frame, &c.Quoted) {
		t.Fatalf("the quote cannot be rewritten: %+v", c.Quoted)
	}
	var out []byte
	rw := packet.Rewriter{Emit: func(_ uint32, _ *action.Action, f []byte) { out = slices.Clone(f) }}
	var as action.Physical
	for _, a := range c.Actions {
		if a.Op == action.Forward {
			a.Op, port = action.Output, w.topo.Port(a.VPort).Name
		}
		as = append(as, a)
	}
	if err := rw.Apply(frame, packet.GSO{}, as); err != nil {
		t.Fatalf("%v", err)
	}
	v, why := packet.Parse(out, 1)
	if why != drop.None || packet.ChecksumState(&v) != packet.ChecksumValid && v.Key.Frag == match.FragNone {
		t.Fatalf("%s, checksum %v", why, packet.ChecksumState(&v))
	}
	return port, v
}

// line describes addresses and ports of a packet, and of the one that it quotes.
func line(v *packet.View) string {
	k := &v.Key
	s := fmt.Sprintf("%s:%d > %s:%d", k.Src, k.SrcPort, k.Dst, k.DstPort)
	if q, ok := v.Quoted(); ok {
		s += " quotes " + line(&q)
	}
	return s
}

// pass has a packet arrive as outcome does; with size it is sent in fragments of so many bytes, and put together where they arrive.
func (w *world) pass(t interface{ Fatalf(string, ...any) }, in *pathtest.Injection, size int) (port string, v packet.View) {
	if size == 0 || len(in.View.Payload()) <= size {
		return w.outcome(t, in)
	}
	w.datagrams++
	var arrived [][]byte
	for _, f := range pathtest.Fragments(in.View.Frame, size, w.datagrams) {
		v, why := packet.Parse(f, 1)
		if why != drop.None {
			t.Fatalf("%s", why)
		}
		part := pathtest.Injection{Port: in.Port, View: v}
		w.topo.State.Remember(&part)
		to, got := w.outcome(t, &part)
		if port != "" && to != port {
			t.Fatalf("fragments go to %s and %s", port, to)
		}
		port, arrived = to, append(arrived, got.Frame)
	}
	v, why := packet.Parse(pathtest.Reassemble(arrived), 1)
	if why != drop.None || packet.ChecksumState(&v) != packet.ChecksumValid {
		t.Fatalf("put together: %s, checksum %v", why, packet.ChecksumState(&v))
	}
	return port, v
}

// answer is what the other side sends back: swapped in every header, with the same payload.
func answer(v *packet.View) []byte {
	k, eth := &v.Key, v.Ether().Reverse()
	ip := packet.IP{Src: k.Dst, Dst: k.Src}
	switch k.Proto {
	case packet.ProtoTCP:
		return packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort}, v.Payload())
	case packet.ProtoUDP:
		return packet.BuildUDP(nil, eth, ip, k.DstPort, k.SrcPort, v.Payload())
	}
	return packet.BuildEchoReply(nil, v)
}

func injection(port string, frame []byte) *pathtest.Injection {
	v, _ := packet.Parse(frame, 1)
	return &pathtest.Injection{Port: pathtest.ID(port), View: v}
}

// TestNATIsItsOwnInverse: whatever leaves, its answer arrives where it came from with the addresses and ports
// that it was sent to; so does an error about it. And no two connections look the same outside. All of it also in fragments, in both
// families; whatever arrives has a valid checksum.
func TestNATIsItsOwnInverse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(pick(rt, "network", gateway, guarded))}
		seen := map[string]string{}
		for range rapid.IntRange(1, 30).Draw(rt, "packets") {
			vm := pick(rt, "vm", "va", "vb", "vc")
			src := map[string]string{"va": "10.0.1.5", "vb": "10.0.1.6", "vc": "10.0.1.7"}[vm]
			dst := pick(rt, "dst", "8.8.8.8", "203.0.113.50", "203.0.113.10", "203.0.113.11")
			onTheWay := addr("203.0.113.1")
			if vm == "va" && rapid.Bool().Draw(rt, "six") {
				src, dst, onTheWay = "fd01::5", "2001:4860::8", addr("2001:db8::1")
			}
			size := pick(rt, "fragments of", 0, 0, 64, 248)
			ports := fmt.Sprintf("ports=%d>%d", pick(rt, "sport", 1, 2, 3), pick(rt, "dport", 53, 80))
			if kind := pick(rt, "proto", "udp", "tcp", "echo"); kind != "echo" {
				ports = kind + " eth=" + vm + ">r:in " + ports
			} else {
				ports = fmt.Sprintf("echo eth=%s>r:in id=%d", vm, pick(rt, "id", 1, 2))
			}
			in := w.topo.MustInject(fmt.Sprintf("%s %s ip=%s>%s len=%d", vm, ports, src, dst, 4*size))
			out, there := w.pass(rt, &in, size)
			what := fmt.Sprintf("%d %s %s", there.Key.Proto, out, line(&there))
			if was, ok := seen[what]; ok && was != line(&in.View) {
				rt.Fatalf("%s and %s both become %s", was, line(&in.View), what)
			}
			seen[what] = line(&in.View)
			if there.Key.Src == in.View.Key.Src {
				rt.Fatalf("leaves with a fixed address: %s", what)
			}
			back, got := w.pass(rt, injection(out, answer(&there)), size)
			want, _ := packet.Parse(answer(&in.View), 1)
			if back != vm || line(&got) != line(&want) {
				rt.Fatalf("%s was answered at %s by %s", line(&in.View), back, line(&got))
			}
			if out != "up" {
				continue
			}
			back, got = w.outcome(rt, injection(out, packet.BuildTimeExceeded(nil, &there, onTheWay)))
			if q, ok := got.Quoted(); !ok || back != vm || line(&q) != line(&in.View) || got.Key.Src != onTheWay {
				rt.Fatalf("%s: error at %s: %s", line(&in.View), back, line(&got))
			}
		}
	})
}

// TestNATMaskIsSound: a flow of a gateway does to all its packets what the simulator would have done.
func TestNATMaskIsSound(t *testing.T) {
	addrs := []string{"10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.1", "203.0.113.2", "203.0.113.10", "203.0.113.11", "203.0.113.50", "8.8.8.8"}
	forwarded, translated := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(pick(rt, "network", gateway, guarded))}
		var b sim.Context
		view := func() packet.View {
			port := pick(rt, "port", "va", "vb", "up")
			eth := map[string]string{"va": "va>r:in", "vb": "vb>r:in", "up": "02:00:00:00:01:01>up"}[port]
			kind := pick(rt, "kind", "udp", "tcp", "echo", "error")
			in := w.topo.MustInject(fmt.Sprintf("%s %s eth=%s ip=%s>%s id=%d ports=%d>%d", port, kind, eth,
				pick(rt, "src", addrs...), pick(rt, "dst", addrs...), pick(rt, "id", 1, 1024), pick(rt, "sport", 1, 1030), pick(rt, "dport", 1, 1030)))
			fragment(rt, &in.View)
			return in.View
		}
		for range 40 {
			in := pathtest.Injection{Port: pathtest.ID(pick(rt, "in", "va", "vb", "up")), View: view()}
			w.topo.State.Remember(&in)
			a := w.send(&in)
			if a.Result == sim.ResultConsumed || a.Result == sim.ResultNotYet || a.UserSpace {
				continue
			}
			if a.Result == sim.ResultForward {
				forwarded++
			}
			if slices.ContainsFunc(a.Actions, func(x action.Action) bool { return x.Op == action.SetSrcPort }) {
				translated++
			}
			w.topo.Simulate(a, &in) // as it is once the connection is there
			checkTwin(rt, w.topo, a, &b, in, mutate(in.View, view(), a.Mask))
		}
	})
	if forwarded == 0 || translated == 0 {
		t.Errorf("%d forwarded, %d translated: the generator has become too narrow", forwarded, translated)
	}
}

// TestNATRefuses what it cannot translate, with a name for each.
func TestNATRefuses(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(gateway)}
	frag := w.topo.MustInject("va sctp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=1>2 frag=first")
	odd := w.topo.MustInject("va error eth=va>r:in ip=10.0.1.5>8.8.8.8")
	for _, tc := range []struct {
		in   *pathtest.Injection
		want drop.Reason
	}{{&frag, drop.NatFragment}, {&odd, drop.NatProtocol}} {
		if c := w.send(tc.in); c.Result != sim.ResultErrorDrop || c.Reason != tc.want {
			t.Errorf("%s %s, want %s", c.Result, c.Reason, tc.want)
		}
	}
	in := w.topo.MustInject("up udp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.2 ports=2>1024")
	if c := w.send(&in); c.Result != sim.ResultErrorDrop || c.Reason != drop.LocalNotTaken {
		t.Errorf("unknown: %s %s", c.Result, c.Reason)
	}
}

// TestGuarded: what a VM did not begin does not reach it, through a floating IP or from its own bridge.
func TestGuarded(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(guarded)}
	for _, line := range []string{
		"up tcp eth=02:00:00:00:01:01>up ip=2001:db8::1>2001:db8::10 ports=9>80",
		"vb udp eth=vb>va ip=10.0.1.6>10.0.1.5 ports=9>80",
	} {
		in := w.topo.MustInject(line)
		if c := w.send(&in); c.Result != sim.ResultDrop || c.Reason != drop.FilterDrop {
			t.Errorf("%s: %s %s", line, c.Result, c.Reason)
		}
	}
	if n := w.topo.State.Tables.Stats().Connections; n != 0 {
		t.Errorf("%d connections of packets that did not arrive", n)
	}
}

// TestNATIsTraced: the tree says which translation was made, without any effect.
func TestNATIsTraced(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(gateway)}
	in := w.topo.MustInject("va tcp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=4000>443")
	w.send(&in)
	w.topo = pathtest.MustParse(gateway)
	w.topo.Simulate(&w.c, &in)
	w.topo.State.Lease(&w.c)
	text := w.topo.Outcome(&in, false)
	if !strings.Contains(text, "NAT: 10.0.1.5:4000 > 8.8.8.8:443 becomes 203.0.113.2:") {
		t.Error(text)
	}
	if again := w.topo.Outcome(&in, false); again != text || w.topo.State.Tables.Stats().Connections != 0 {
		t.Errorf("a trace had an effect:\n%s", again)
	}
}

var natCases = []struct{ name, packet string }{
	{"Masquerade", "va tcp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=4000>443"},
	{"FloatingOut", "vb tcp eth=vb>r:in ip=10.0.1.6>8.8.8.8 ports=4000>443"},
	{"Hairpin", "va tcp eth=va>r:in ip=10.0.1.5>203.0.113.10 ports=4000>443"},
}

func TestNATDoesNotAllocate(t *testing.T) {
	for _, tc := range natCases {
		w := &world{t: t, topo: pathtest.MustParse(guarded)}
		in := w.topo.MustInject(tc.packet)
		w.send(&in)
		if n := testing.AllocsPerRun(100, func() { w.topo.Simulate(&w.c, &in) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

func BenchmarkNAT(b *testing.B) {
	for _, tc := range natCases {
		b.Run(tc.name, func(b *testing.B) {
			w := &world{t: b, topo: pathtest.MustParse(guarded)}
			in := w.topo.MustInject(tc.packet)
			w.send(&in)
			b.ReportAllocs()
			for b.Loop() {
				w.topo.Simulate(&w.c, &in)
			}
		})
	}
}
