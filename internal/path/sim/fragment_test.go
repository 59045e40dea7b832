package sim_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// TestFragmentsBecomeWhatTheWholeWould: a datagram in fragments arrives where the whole one would, as the same bytes, whatever
// translates it, in whichever order they come; those that come before the first one wait for it.
func TestFragmentsBecomeWhatTheWholeWould(t *testing.T) {
	fragmented := balanced + "groups vb open\nallow open in\nallow open out\nallow open in six\nallow open out six\n"
	waited := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, topo: pathtest.MustParse(pick(rt, "network", fragmented, ruled))}
		size := fmt.Sprint(pick(rt, "len", 100, 1500, 3000))
		var lines []string
		if _, ok := w.topo.Ports[pathtest.ID("web1")]; ok {
			lines = []string{
				"va udp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=5>53",                  // snat to one of two addresses
				"va echo eth=va>r:in ip=10.0.1.5>8.8.8.8 id=9",                       // its identifier is in the first fragment alone
				"va udp eth=va>r:in ip=fd01::5>2001:4860::8 ports=5>53",              // and IPv6
				"up udp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.3 ports=5>53",  // static dnat
				"up tcp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.80 ports=5>80", // a service on two machines
				"va udp eth=va>vb ip=10.0.1.5>10.0.1.53 ports=5>53",                  // at the VM's own port
			}
		} else {
			lines = []string{
				"va udp eth=va>r:in ip=10.0.1.5>8.8.8.8 ports=5>53",                  // masqueraded
				"va echo eth=va>r:in ip=10.0.1.5>8.8.8.8 id=9",                       // and an echo
				"vb udp eth=vb>r:in ip=10.0.1.6>8.8.8.8 ports=5>53",                  // a floating IP, behind a security group
				"up tcp eth=02:00:00:00:01:01>up ip=8.8.8.8>203.0.113.80 ports=5>81", // a load balancer
				"up udp eth=02:00:00:00:01:01>up ip=2001:db8::1>2001:db8::80 ports=5>53",
			}
		}
		line := pick(rt, "line", lines...) + " len=" + size
		whole := w.topo.MustInject(line)
		fragments := pathtest.Fragments(whole.View.Frame, 8*rapid.IntRange(6, 180).Draw(rt, "size"), 77)
		fragments = rapid.Permutation(fragments).Draw(rt, "order")
		var arrived [][]byte
		port := ""
		for len(fragments) > 0 {
			var wait [][]byte
			for _, f := range fragments {
				v, why := packet.Parse(f, 1)
				if why != drop.None {
					rt.Fatalf("%s", why)
				}
				in := pathtest.Injection{Port: whole.Port, View: v}
				w.topo.State.Remember(&in)
				if v.Key.Frag != match.FragNone {
					if w.topo.Simulate(&w.c, &in); w.c.Result == sim.ResultNotYet && v.Key.Frag == match.FragLater && w.c.Wait == sim.Datagram(in.Port, &v) {
						wait = append(wait, f)
						waited++
						continue
					}
				}
				to, got := w.outcome(rt, &in)
				if port != "" && to != port {
					rt.Fatalf("%s: fragments go to %s and %s", line, port, to)
				}
				port = to
				arrived = append(arrived, got.Frame)
			}
			if len(wait) == len(fragments) {
				rt.Fatalf("%s: all wait", line)
			}
			fragments = wait
		}
		to, want := w.outcome(rt, &whole)
		if got := pathtest.Reassemble(arrived); len(arrived) > 1 && !bytes.Equal(got, want.Frame) {
			rt.Fatalf("%s at %s:\n%x\nwant\n%x", line, port, got, want.Frame)
		}
		if to != port {
			rt.Fatalf("%s: fragments go to %s, the whole to %s", line, port, to)
		}
	})
	if waited == 0 {
		t.Error("no fragment has waited")
	}
}

// TestErrorAboutFragment: an ICMP error that quotes a first fragment is translated back as one about a whole packet is.
func TestErrorAboutFragment(t *testing.T) {
	for _, addresses := range []string{"10.0.1.5>8.8.8.8", "fd01::5>2001:4860::8"} {
		w := &world{t: t, topo: pathtest.MustParse(ruled)}
		in := w.topo.MustInject("va udp eth=va>r:in ip=" + addresses + " ports=5>53 frag=first len=99")
		w.topo.State.Remember(&in)
		_, there := w.outcome(t, &in)
		if there.Key.Src == in.View.Key.Src {
			t.Errorf("%s: not translated", addresses)
		}
		back, got := w.outcome(t, injection("up", packet.BuildTimeExceeded(nil, &there, there.Key.Dst)))
		if q, ok := got.Quoted(); !ok || back != "va" || line(&q) != line(&in.View) || q.Key.Frag != match.FragFirst {
			t.Errorf("%s: at %s: %s", addresses, back, line(&got))
		}
	}
}
