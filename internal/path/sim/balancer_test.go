package sim_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// balanced is gateway with load balancers: on the outside link, on the inside link beside the members, with IPv6,
// behind a floating IP, and with memory of clients.
const balanced = gateway + `
pool web
server web wa 10.0.1.5 80 2
server web wb 10.0.1.6 80
server web wc 10.0.1.7 8080
pool six
server six sa fd01::5 53
pool sticky 60
server sticky ta 10.0.1.5 90
server sticky tb 10.0.1.6 90
server sticky tc 10.0.1.7 90
balancer outside r 203.0.113.80
listen outside tcp 80 web
listen outside tcp 81 web
listen outside udp 90 sticky
balancer inside r 10.0.1.80
listen inside tcp 80 web
listen inside udp 90 sticky
balancer six r 2001:db8::80
listen six udp 53 six
floating up 203.0.113.12 10.0.1.80
mac in 02:00:00:00:00:0c vc
`

// client sends from a VM, or from outside by the uplink.
func (w *world) client(from, src, dst string, proto string, sport, dport int) *pathtest.Injection {
	eth := from + ">r:in"
	if from == "up" {
		eth = "02:00:00:00:01:01>up"
	}
	in := w.topo.MustInject(fmt.Sprintf("%s %s eth=%s ip=%s>%s ports=%d>%d", from, proto, eth, src, dst, sport, dport))
	return &in
}

// TestBalancedIsItsOwnInverse: a member's answer, and an error about what it was sent, come back to the client from the address
// that it spoke to; a connection stays with its member; and no two look the same to a member.
func TestBalancedIsItsOwnInverse(t *testing.T) {
	members := map[string]bool{}
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(balanced)}
		seen, to := map[string]string{}, map[string]string{}
		for range rapid.IntRange(1, 40).Draw(rt, "packets") {
			from := pick(rt, "from", "va", "vb", "vc", "up", "up")
			src := map[string]string{"va": "10.0.1.5", "vb": "10.0.1.6", "vc": "10.0.1.7", "up": pick(rt, "client", "8.8.8.8", "9.9.9.9")}[from]
			proto, dport := "tcp", pick(rt, "dport", 80, 81)
			dst := pick(rt, "vip", "203.0.113.80", "203.0.113.80", "10.0.1.80", "203.0.113.12")
			if from == "up" && dst == "10.0.1.80" {
				dst = "203.0.113.12" // as which it is known outside
			}
			if dst != "203.0.113.80" {
				dport = 80
			}
			switch pick(rt, "other", "", "", "sticky", "six") {
			case "sticky":
				proto, dport = "udp", 90
			case "six":
				if from == "up" {
					src, dst, proto, dport = "2001:db8::1", "2001:db8::80", "udp", 53
				}
			}
			sport := pick(rt, "sport", 1, 2, 3, 4, 5)
			if dst == "203.0.113.12" {
				sport += 100 // to 10.0.1.80 from the same port it would be the same connection
			}
			in := w.client(from, src, dst, proto, sport, dport)
			out, there := w.outcome(rt, in)
			members[out] = true
			asked, what := line(&in.View), fmt.Sprintf("%d %s", there.Key.Proto, line(&there))
			if was, ok := seen[what]; ok && was != asked {
				rt.Fatalf("%s and %s both become %s", was, asked, what)
			}
			if was, ok := to[asked]; ok && was != what {
				rt.Fatalf("%s was sent as %s, and is now as %s", asked, was, what)
			}
			seen[what], to[asked] = asked, what
			back, got := w.outcome(rt, injection(out, answer(&there)))
			want, _ := packet.Parse(answer(&in.View), 1)
			if back != from || line(&got) != line(&want) {
				rt.Fatalf("%s was answered at %s by %s, not %s", asked, back, line(&got), line(&want))
			}
			complaint := packet.BuildICMPError(nil, &there, there.Key.Dst, packet.ICMP{Type: 3, Code: 3})
			if there.Is6() {
				complaint = packet.BuildICMPError(nil, &there, there.Key.Dst, packet.ICMP{Type: 1, Code: 4})
			}
			back, got = w.outcome(rt, injection(out, complaint))
			if q, ok := got.Quoted(); !ok || back != from || line(&q) != asked || got.Key.Src != in.View.Key.Dst {
				rt.Fatalf("%s: error at %s: %s", asked, back, line(&got))
			}
		}
	})
	if len(members) != 3 {
		t.Errorf("only %v got connections", members)
	}
}

// TestBalancedMaskIsSound while members come, go and change.
func TestBalancedMaskIsSound(t *testing.T) {
	addrs := []string{"10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.1", "10.0.1.80", "203.0.113.80", "203.0.113.80", "203.0.113.2", "203.0.113.12", "8.8.8.8"}
	balanced4 := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(balanced)}
		var b sim.Context
		view := func() packet.View {
			port := pick(rt, "port", "va", "vb", "up")
			eth := map[string]string{"va": "va>r:in", "vb": "vb>r:in", "up": "02:00:00:00:01:01>up"}[port]
			kind := pick(rt, "kind", "udp", "tcp", "tcp", "echo", "error")
			ports := []any{1, 80, 90, 8080, 1024}
			in := w.topo.MustInject(fmt.Sprintf("%s %s eth=%s ip=%s>%s id=%d ports=%d>%d", port, kind, eth,
				pick(rt, "src", addrs...), pick(rt, "dst", addrs...), pick(rt, "id", 1, 1024), pick(rt, "sport", ports...), pick(rt, "dport", ports...)))
			return in.View
		}
		for range 40 {
			if rapid.IntRange(0, 4).Draw(rt, "change") == 0 {
				w.topo.Become("web", pick(rt, "of", "wa", "wb", "wc"), pick(rt, "weight", 0, 1, 2), rapid.Bool().Draw(rt, "down"))
			}
			in := pathtest.Injection{Port: pathtest.ID(pick(rt, "in", "va", "vb", "up")), View: view()}
			a := w.send(&in)
			if a.Result == sim.ResultConsumed || a.Result == sim.ResultNotYet || a.UserSpace {
				continue
			}
			if slices.ContainsFunc(a.Actions, func(x action.Action) bool { return x.Op == action.SetDst }) {
				balanced4++
			}
			w.topo.Simulate(a, &in) // as it is once the connection is there
			checkTwin(rt, w.topo, a, &b, in, mutate(in.View, view(), a.Mask))
		}
	})
	if balanced4 == 0 {
		t.Error("nothing was balanced: the generator has become too narrow")
	}
}

// member is where a new packet of the client goes.
func (w *world) member(t testing.TB, in *pathtest.Injection) string {
	port, _ := w.outcome(t, in)
	return port
}

// TestBalancedByWeight: each member gets its share; a change moves only the connections that it must, and none that is there.
func TestBalancedByWeight(t *testing.T) {
	const n = 4000
	choices := func(change func(*pathtest.Topology)) (to []string, count map[string]int) {
		w := &world{t: t, topo: pathtest.MustParse(balanced)}
		change(w.topo)
		count = map[string]int{}
		for i := range n {
			port := w.member(t, w.client("up", fmt.Sprintf("8.8.%d.%d", i/250, 1+i%250), "203.0.113.80", "tcp", 1000+i, 80))
			to, count[port] = append(to, port), count[port]+1
		}
		return to, count
	}
	all, count := choices(func(*pathtest.Topology) {})
	for port, share := range map[string]float64{"va": 0.5, "vb": 0.25, "vc": 0.25} {
		sigma := math.Sqrt(n * share * (1 - share))
		if got := float64(count[port]); math.Abs(got-n*share) > 5*sigma {
			t.Errorf("%s got %v of %d connections, want %v", port, got, n, n*share)
		}
	}
	for what, change := range map[string]func(*pathtest.Topology){
		"vb": func(x *pathtest.Topology) { x.Become("web", "wb", 1, true) },
		"va": func(x *pathtest.Topology) { x.Become("web", "wa", 0, false) },
	} {
		less, _ := choices(change)
		for i := range all {
			if all[i] != less[i] && all[i] != what {
				t.Fatalf("%s went to %s and, without %s, to %s", fmt.Sprint(i), all[i], what, less[i])
			}
			if less[i] == what {
				t.Fatalf("%s got a connection", what)
			}
		}
	}
}

// TestBalancedConnections: what becomes of connections when their member changes.
func TestBalancedConnections(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(balanced)}
	names := map[string]string{"va": "wa", "vb": "wb", "vc": "wc"}
	in := w.client("up", "8.8.8.8", "203.0.113.80", "tcp", 1, 80)
	first := w.member(t, in)
	w.topo.Become("web", names[first], 0, false)
	if got := w.member(t, in); got != first {
		t.Errorf("disabled: the connection went from %s to %s", first, got)
	}
	if got := w.member(t, w.client("up", "8.8.8.8", "203.0.113.80", "tcp", 2, 80)); got == first {
		t.Error("disabled: it got a new connection")
	}
	w.topo.Become("web", names[first], 1, true)
	second := w.member(t, in)
	if second == first {
		t.Error("down: the connection stays")
	}
	w.topo.Become("web", names[first], 2, false)
	if got := w.member(t, in); got != second {
		t.Errorf("up again: the connection went from %s to %s", second, got)
	}
	for _, name := range names {
		w.topo.Become("web", name, 1, true)
	}
	if c := w.send(in); c.Result != sim.ResultErrorDrop || c.Reason != drop.NoMember || len(c.Generated) != 1 {
		t.Errorf("no member: %s %s, %d generated", c.Result, c.Reason, len(c.Generated))
	}
}

// TestBalancedBySource: a client comes back to its member, also when others would be chosen by now, until it was away for long.
func TestBalancedBySource(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(balanced)}
	names := map[string]string{"va": "ta", "vb": "tb", "vc": "tc"}
	send := func(sport int) string {
		return w.member(t, w.client("up", "8.8.8.8", "203.0.113.80", "udp", sport, 90))
	}
	home := send(1)
	for i := 2; i < 40; i++ {
		if got := send(i); got != home {
			t.Fatalf("connection %d went to %s, not %s", i, got, home)
		}
	}
	w.topo.Become("sticky", names[home], 1, true)
	away := send(50)
	if away == home {
		t.Fatal("it went to a member that is down")
	}
	w.topo.Become("sticky", names[home], 1, false)
	if got := send(51); got != away {
		t.Errorf("the client did not stay with its new member %s but went to %s", away, got)
	}
	w.topo.State.Clock.Advance(61 * time.Second)
	for range 8 { // an eighth of the table at a time
		w.topo.State.Tables.Tick()
	}
	if got := send(52); got != home {
		t.Errorf("after a minute it went to %s, not to %s, which is the first choice", got, home)
	}
}

// TestBalancedStaysHome: a connection that its client's member cannot tell from another one goes elsewhere, alone.
func TestBalancedStaysHome(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(balanced)}
	send := func(dst string, sport int) string {
		return w.member(t, w.client("up", "8.8.8.8", dst, "udp", sport, 90))
	}
	const one, other = "203.0.113.80", "203.0.113.12"
	home := send(one, 1)
	if got := send(other, 2); got != home {
		t.Fatalf("by source, one pool chose %s and then %s", home, got)
	}
	send(one, 3)
	if got := send(other, 3); got == home {
		t.Fatalf("%s has two connections of the same addresses and ports", home)
	}
	if got := send(other, 4); got != home {
		t.Errorf("the client has moved to %s for good; its member is %s", got, home)
	}
}
