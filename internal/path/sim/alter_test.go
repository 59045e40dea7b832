package sim_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// ruled translates by rules alone: the inside's sources behind two addresses, a service on two machines, a machine of
// its own address, and at a VM's own port.
const ruled = `
bridge in
bridge dmz
router r
vm va in 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb in 02:00:00:00:00:0b 10.0.1.6
vm web1 dmz 02:00:00:00:00:11 10.0.2.1 fd02::1
vm web2 dmz 02:00:00:00:00:12 10.0.2.2 fd02::2
vm one dmz 02:00:00:00:00:13 10.0.2.3
link in r=10.0.1.254/24,fd01::fe/64
link dmz r=10.0.2.254/24,fd02::fe/64
uplink up r 02:00:00:00:01:00 203.0.113.2/24 2001:db8::2/64
route r 0.0.0.0/0 via 203.0.113.1 out up
route r ::/0 via 2001:db8::1 out up
heard in 10.0.1.99 02:00:00:00:00:0a
neighbour up 203.0.113.1 02:00:00:00:01:01
neighbour up 2001:db8::1 02:00:00:00:01:01

rule pre dnat:10.0.2.1-10.0.2.2@8080 dst=203.0.113.80 proto=6 dst_ports=80
rule pre dnat:fd02::1,fd02::2 dst=2001:db8::80 then=continue
rule pre dnat:10.0.2.3 dst=203.0.113.3
rule pre dnat:10.0.2.1 dst=203.0.113.80 proto=1
filter r pre pre

rule post snat:203.0.113.3 src=10.0.2.3 out_ports=up
rule post snat:203.0.113.8-203.0.113.9@5000-5999 src=10.0.1.0/24 out_ports=up
rule post snat:2001:db8::8@1-65535 src=fd01::/64 out_ports=up
rule post snat:10.0.2.254@20000-20099 dst_rewritten src=10.0.2.0/24
filter r post post

rule own dnat:10.0.1.6@53 dst=10.0.1.53 proto=17
rule own snat:10.0.1.99 dst=10.0.2.0/24
filter va in own
`

// TestRulesTranslateBothWays: what goes out through rules comes back to where it came from, with the addresses and ports
// that it was sent to; errors about it too, on either side. No two connections look the same where they arrive.
func TestRulesTranslateBothWays(t *testing.T) {
	kinds := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(ruled)}
		seen := map[string]string{}
		for range rapid.IntRange(1, 30).Draw(rt, "packets") {
			var line2 string
			port := pick(rt, "from", "va", "vb", "one", "up", "web1")
			eth := map[string]string{"va": "va>r:in", "vb": "vb>r:in", "one": "one>r:dmz", "web1": "web1>r:dmz", "up": "02:00:00:00:01:01>up"}[port]
			src := map[string]string{"va": "10.0.1.5", "vb": "10.0.1.6", "one": "10.0.2.3", "web1": "10.0.2.1", "up": pick(rt, "client", "8.8.8.8", "198.51.100.1")}[port]
			dst := pick(rt, "dst", "8.8.8.8", "203.0.113.80", "203.0.113.3", "10.0.1.53", "10.0.2.2")
			if port == "up" {
				dst = pick(rt, "service", "203.0.113.80", "203.0.113.3")
			}
			if (port == "va" || port == "up") && rapid.Bool().Draw(rt, "six") {
				src, dst = map[string]string{"va": "fd01::5", "up": "2001:4860::8"}[port], "2001:db8::80"
			}
			if port == "va" && dst == "10.0.1.53" {
				eth = "va>vb" // on its own bridge
			} else if dst == "10.0.1.53" {
				continue
			}
			switch proto := pick(rt, "proto", "udp", "tcp", "echo"); proto {
			case "echo":
				line2 = fmt.Sprintf("%s echo eth=%s ip=%s>%s id=%d", port, eth, src, dst, pick(rt, "id", 1, 2))
			default:
				dport := pick(rt, "dport", 53, 80)
				if dst == "203.0.113.80" && (proto != "tcp" || dport != 80) || dst == "10.0.1.53" && proto != "udp" {
					continue // no rule: for the router itself, or nobody
				}
				line2 = fmt.Sprintf("%s %s eth=%s ip=%s>%s ports=%d>%d", port, proto, eth, src, dst, pick(rt, "sport", 1, 2, 3), dport)
			}
			if strings.Contains(line2, "echo") && dst == "10.0.1.53" {
				continue
			}
			in := w.topo.MustInject(line2)
			if w.topo.Simulate(&w.c, &in); w.c.Reason == drop.NatConflict {
				continue // a static rule, and the ports are another's
			}
			out, there := w.outcome(rt, &in)
			what := fmt.Sprintf("%d %s %s", there.Key.Proto, out, line(&there))
			if was, ok := seen[what]; ok && was != line(&in.View) {
				rt.Fatalf("%s and %s both become %s", was, line(&in.View), what)
			}
			seen[what] = line(&in.View)
			if line(&there) != line(&in.View) {
				kinds[port+" to "+dst]++
			}
			back, got := w.outcome(rt, injection(out, answer(&there)))
			want, _ := packet.Parse(answer(&in.View), 1)
			if back != port || line(&got) != line(&want) {
				rt.Fatalf("%s (as %s) was answered at %s by %s", line2, what, back, line(&got))
			}
			// Whoever has got the packet complains about it, to whom it seems to come from.
			back, got = w.outcome(rt, injection(out, packet.BuildTimeExceeded(nil, &there, there.Key.Dst)))
			if q, ok := got.Quoted(); !ok || back != port || line(&q) != line(&in.View) || got.Key.Src != in.View.Key.Dst {
				rt.Fatalf("%s (as %s): error at %s: %s", line2, what, back, line(&got))
			}
			// And its sender about the answer.
			if port != out {
				_, err := w.outcome(rt, injection(port, packet.BuildTimeExceeded(nil, &want, in.View.Key.Src)))
				sent, _ := packet.Parse(answer(&there), 1)
				if q, ok := err.Quoted(); !ok || line(&q) != line(&sent) || err.Key.Src != there.Key.Src {
					rt.Fatalf("%s: error about the answer: %s", line2, line(&err))
				}
			}
		}
	})
	for _, want := range []string{"va to 8.8.8.8", "up to 203.0.113.80", "up to 203.0.113.3", "one to 8.8.8.8", "va to 2001:db8::80", "web1 to 203.0.113.80", "va to 10.0.1.53", "va to 10.0.2.2"} {
		if kinds[want] == 0 && !testing.Short() { // few packets may miss it
			t.Errorf("nothing was translated from %s: the generator has become too narrow (%v)", want, kinds)
		}
	}
}

// TestRuleNATMaskIsSound: flows of random networks of rules that change packets do to all their packets what the simulator
// would have done.
func TestRuleNATMaskIsSound(t *testing.T) {
	addrs := []string{"10.0.1.5", "10.0.1.6", "10.0.1.254", "10.0.1.99", "10.0.2.1", "10.0.2.2", "10.0.2.3", "203.0.113.2", "203.0.113.3", "203.0.113.8", "203.0.113.80", "8.8.8.8"}
	forwarded, changed := 0, map[action.Op]int{}
	rapid.Check(t, func(rt *rapid.T) {
		text := ruled + "rule own pop_vlan then=continue !no_vlan\n"
		for i := range rapid.IntRange(0, 4).Draw(rt, "rules") {
			chain := pick(rt, "chain", "pre", "post", "own", "more")
			act := pick(rt, "action", "dnat:10.0.2.1@8080-8083", "dnat:10.0.2.3", "snat:203.0.113.9", "snat:203.0.113.8@5000-5100", "rev_dnat", "rev_snat",
				"push_vlan:7", "pop_vlan", "set_dscp:10", "redirect:vb/egress", "redirect:web1/fail_open", "redirect:up/egress", "accept", "drop", "reject")
			cond := pick(rt, "cond", "proto=6", "proto=17", "dst=10.0.0.0/8", "!dst=10.0.0.0/8", "dst_rewritten", "!dst_rewritten", "original_dst=203.0.113.0/24", "src=10.0.1.5", "vlan=7", "!no_vlan", "in_ports=va", "proto=6 dst_ports=80", "tos=40")
			if strings.Contains(act, "@") && strings.HasPrefix(act, "dnat") {
				cond = "proto=6"
			}
			text += fmt.Sprintf("rule %s %s %s then=%s\n", chain, act, cond, pick(rt, "then", "accept", "continue", "return"))
			if strings.HasPrefix(act, "re") && !strings.HasPrefix(act, "rev") || act == "accept" || act == "drop" {
				text = text[:strings.LastIndex(text, " then=")] + "\n"
			}
			if i == 0 {
				text += "filter " + pick(rt, "where", "in pre", "dmz post", "vb out", "up in", "r:dmz out") + " more\n"
			}
		}
		text += "rule more continue\n"
		w := &world{t: t, topo: pathtest.MustParse(text)}
		var b sim.Context
		view := func() packet.View {
			port := pick(rt, "port", "va", "vb", "up")
			eth := map[string]string{"va": "va>r:in", "vb": "vb>r:in", "up": "02:00:00:00:01:01>up"}[port]
			kind := pick(rt, "kind", "udp", "tcp", "echo", "error", "arp")
			in := w.topo.MustInject(fmt.Sprintf("%s %s eth=%s ip=%s>%s id=%d ports=%d>%d tos=%d", port, kind, eth,
				pick(rt, "src", addrs...), pick(rt, "dst", addrs...), pick(rt, "id", 1, 5001), pick(rt, "sport", 1, 5001), pick(rt, "dport", 80, 5001), pick(rt, "tos", 0, 3, 40)))
			if rapid.IntRange(0, 5).Draw(rt, "tagged") == 0 {
				in.View.Key.VLAN = 0x1007
			}
			return in.View
		}
		for range 30 {
			in := pathtest.Injection{Port: pathtest.ID(pick(rt, "in", "va", "vb", "up", "web1")), View: view()}
			a := w.send(&in)
			if a.Result == sim.ResultConsumed || a.Result == sim.ResultNotYet || a.UserSpace {
				continue
			}
			if a.Result == sim.ResultForward {
				forwarded++
			}
			for i := range a.Actions {
				changed[a.Actions[i].Op]++
			}
			w.topo.Simulate(a, &in) // as it is once the connection is there
			checkTwin(rt, w.topo, a, &b, in, mutate(in.View, view(), a.Mask))
		}
	})
	for _, op := range []action.Op{action.SetSrc, action.SetDst, action.SetSrcPort, action.SetDstPort, action.PushVLAN, action.PopVLAN, action.SetTOS} {
		if changed[op] == 0 && !testing.Short() {
			t.Errorf("%d forwarded, none with %v: the generator has become too narrow", forwarded, op)
		}
	}
}

// TestRuleNATKeepsItsChoice: all packets of a connection go to the same target; connections are spread over all.
func TestRuleNATKeepsItsChoice(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(ruled)}
	seen := map[string]int{}
	for port := range 64 {
		line := fmt.Sprintf("up tcp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.80 ports=%d>80", 1000+port)
		in := w.topo.MustInject(line)
		_, v := w.outcome(t, &in)
		again := w.topo.MustInject(line + " ttl=9")
		if _, v2 := w.outcome(t, &again); v2.Key.Dst != v.Key.Dst || v2.Key.DstPort != 8080 {
			t.Fatalf("port %d: %s, then %s:%d", 1000+port, v.Key.Dst, v2.Key.Dst, v2.Key.DstPort)
		}
		seen[v.Key.Dst.String()]++
	}
	if len(seen) != 2 || seen["10.0.2.1"] < 16 || seen["10.0.2.2"] < 16 {
		t.Errorf("spread as %v", seen)
	}
	if n := w.topo.State.Tables.Stats().Connections; n != 64 {
		t.Errorf("%d connections", n)
	}
}

// turned is a network whose router sends back to the bridge what comes from there: such packets pass the bridge twice.
const turned = `
bridge in
router r
vm va in 02:00:00:00:00:0a 10.0.1.5
vm vb in 02:00:00:00:00:0b 10.0.1.6
link in r=10.0.1.254/24
route r 203.0.113.8/32 via 10.0.1.5 out r:in
filter in pre pre
`

// TestTranslatedOnce: a packet that passes a bridge twice, because its router turns it round, is translated there once, and so are
// those after it and the answers.
func TestTranslatedOnce(t *testing.T) {
	for _, rule := range []string{"snat:203.0.113.8@5000-5999 src=10.0.1.5", "snat:203.0.113.8@5000-5999 dst=10.0.1.6", "snat:203.0.113.8 dst=10.0.1.6"} {
		t.Run(rule, func(t *testing.T) {
			w := &world{t: t, topo: pathtest.MustParse(turned + "rule pre " + rule + "\n")}
			for port := range 50 { // what port they get is hashed
				line := fmt.Sprintf("va tcp eth=va>r:in ip=10.0.1.5>10.0.1.6 ports=%d>80", 1000+port)
				in := w.topo.MustInject(line)
				_, first := w.outcome(t, &in)
				if first.Key.Src.String() != "203.0.113.8" {
					t.Fatalf("not translated: %s", first.Key.Src)
				}
				in = w.topo.MustInject(line + " ttl=9")
				if _, again := w.outcome(t, &in); again.Key.SrcPort != first.Key.SrcPort {
					t.Fatalf("port %d becomes %d, then %d", 1000+port, first.Key.SrcPort, again.Key.SrcPort)
				}
				back := w.topo.MustInject(fmt.Sprintf("vb tcp eth=vb>r:in ip=10.0.1.6>203.0.113.8 ports=80>%d", first.Key.SrcPort))
				if to, got := w.outcome(t, &back); to != "va" || got.Key.DstPort != uint16(1000+port) || got.Key.Dst.String() != "10.0.1.5" {
					t.Fatalf("the answer comes to %s as %s:%d", to, got.Key.Dst, got.Key.DstPort)
				}
			}
			if n := w.topo.State.Tables.Stats().Connections; n != 50 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestTranslatedInBetween: what somebody else has translated meanwhile is translated again by the bridge that it passes twice, and not to the
// port that this very packet has taken there before; dropped when there is no other one.
func TestTranslatedInBetween(t *testing.T) {
	for pool, want := range map[string]string{"5000-5003": "forward none 2", "5000": "error drop nat_conflict 0"} {
		w := &world{t: t, topo: pathtest.MustParse(turned + "rule pre snat:203.0.113.8@" + pool + " dst=10.0.1.6" + `
rule post snat:203.0.113.9@6000-6015 dst=10.0.1.6
filter r post post
`)}
		in := w.topo.MustInject("va tcp eth=va>r:in ip=10.0.1.5>10.0.1.6 ports=1000>80")
		c := w.send(&in) // fails when what is proposed contradicts itself
		translations := 0
		for i := range c.Learn {
			if l := &c.Learn[i]; l.Kind == sim.LearnConnection && l.Reply.Dst.String() == "203.0.113.8" {
				translations++
			}
		}
		if got := fmt.Sprint(c.Result, " ", c.Reason, " ", translations); got != want {
			t.Errorf("%s: %s, want %s", pool, got, want)
		}
	}
}

// TestRedirectLoopsEnd: rules that send a packet round and round end as a loop does.
func TestRedirectLoopsEnd(t *testing.T) {
	for _, text := range []string{
		"rule l redirect:va\nfilter va in l\n",
		"rule l redirect:va\nrule m redirect:vb\nfilter va in m\nfilter vb in l\n",
		"rule l redirect:a:b/egress\nfilter b:a in l\nfilter a post l\n",
	} {
		topo := pathtest.MustParse("bridge a\nbridge b\nvm va a\nvm vb a\nlink a b\n" + text)
		in := topo.MustInject("va udp eth=02:00:00:00:00:01>02:00:00:00:00:02 ip=10.0.0.1>10.0.0.2 ports=1>2")
		var c sim.Context
		topo.Simulate(&c, &in)
		if c.Result != sim.ResultErrorDrop || c.Reason != drop.Loop || len(c.Generated) > 0 {
			t.Errorf("%s: %s, %s", text, c.Result, c.Reason)
		}
	}
}

// TestAlterDoesNotAllocate on the way of packets of known connections.
func TestAlterDoesNotAllocate(t *testing.T) {
	w := &world{t: t, topo: pathtest.MustParse(ruled)}
	for _, line := range []string{
		"up tcp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.80 ports=4000>80",
		"va tcp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=4000>443",
		"one udp eth=one>r:dmz ip=10.0.2.3>8.8.8.8 ports=4000>53",
	} {
		in := w.topo.MustInject(line)
		w.send(&in)
		if n := testing.AllocsPerRun(100, func() { w.topo.Simulate(&w.c, &in) }); n != 0 || w.c.Result != sim.ResultForward {
			t.Errorf("%s: %v allocations, %s", line, n, w.c.Result)
		}
	}
}
