package sim_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// mirrored is rich with mirrors at every point, and a port that marks.
const mirrored = rich + `
vm tap b
vm dark c
down dark
rule drops drop proto=6
filter va in drops
filter b pre drops
mirror m1 va in,before tap proto=17
mirror m2 va both tap tos=8
mirror m3 a both,before tap dst=10.0.1.0/24
mirror m4 a out tap src_ports=1-100 proto=17
mirror m5 r both tap dst=10.0.0.0/14
mirror m6 r both,before dark
mirror m7 b in tap
mirror m8 vb out tap dst_ports=50-60 proto=17
`

// TestMirrorsChangeNothing: with mirrors everybody but their ports gets what they get without, and what is learnt, made
// and answered is the same.
func TestMirrorsChangeNothing(t *testing.T) {
	with := pathtest.MustParse(mirrored + "dscp ve 10\n")
	without := pathtest.MustParse(mirrored + "dscp ve 10\n")
	for _, p := range without.Ports {
		p.Mirrors = nil
	}
	for _, x := range without.Bridges {
		x.Mirrors = nil
	}
	for _, x := range without.Routers {
		x.Mirrors = nil
	}
	copies := 0
	var a, b sim.Context
	rapid.Check(t, func(t *rapid.T) {
		for range 100 {
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "vb", "vc", "ve", "up")), View: gen{t, with}.view()}
			with.Simulate(&a, &in)
			without.Simulate(&b, &in)
			if a.Result == sim.ResultNotYet || b.Result == sim.ResultNotYet {
				if a.Result != b.Result || a.Wait != b.Wait {
					t.Fatalf("%s %v, without mirrors %s %v", a.Result, a.Wait, b.Result, b.Wait)
				}
				continue
			}
			got, want := delivered(t, &a, in.View.Frame), delivered(t, &b, in.View.Frame)
			for _, f := range want {
				i := slices.Index(got, f)
				if i < 0 {
					t.Fatalf("%s\nis not among\n%q", f, got)
				}
				got = slices.Delete(got, i, i+1)
			}
			tap := pathtest.ID("tap").String()
			for _, f := range got {
				if f[:len(tap)] != tap {
					t.Fatalf("a mirror sends %q", f)
				}
			}
			copies += len(got)
			if len(want) == 0 && len(got) == 0 && (a.Result != b.Result || a.Reason != b.Reason) {
				t.Fatalf("%s %s, without mirrors %s %s", a.Result, a.Reason, b.Result, b.Reason)
			}
			made := func(x, y sim.Generated) bool { return x.Port == y.Port && slices.Equal(x.Frame, y.Frame) }
			if !slices.EqualFunc(a.Generated, b.Generated, made) || !slices.Equal(a.Learn, b.Learn) {
				t.Fatalf("made %v, learnt %v; without mirrors %v, %v", a.Generated, a.Learn, b.Generated, b.Learn)
			}
		}
	})
	if copies == 0 {
		t.Error("no packet was copied: the generator has become too narrow")
	}
}

// delivered is what leaves, as "port frame".
func delivered(t *rapid.T, c *sim.Context, frame []byte) (out []string) {
	if c.Result != sim.ResultForward {
		return nil
	}
	var ports []uuid.UUID
	var as action.Physical
	for _, x := range c.Actions {
		if x.Op == action.Forward {
			ports = append(ports, x.VPort)
			x = action.Action{Op: action.Output, Port: uint32(len(ports) - 1)}
		}
		as = append(as, x)
	}
	r := packet.Rewriter{Emit: func(port uint32, _ *action.Action, f []byte) {
		out = append(out, fmt.Sprintf("%s %x", ports[port], f))
	}}
	if err := r.Apply(slices.Clone(frame), packet.GSO{}, as); err != nil {
		t.Fatalf("%v: %+v", err, as)
	}
	return out
}

// TestCopiesAreBounded: a flow has to hold them all.
func TestCopiesAreBounded(t *testing.T) {
	text := "bridge n\nvm a n 02:00:00:00:00:0a\nvm b n 02:00:00:00:00:0b\nvm tap n 02:00:00:00:00:0f\n"
	for i := range sim.MaxCopies + 3 {
		text += fmt.Sprintf("mirror m%d a in tap\n", i)
	}
	topo := pathtest.MustParse(text)
	in := topo.MustInject("a udp eth=a>b ip=10.0.0.1>10.0.0.2 ports=1>2")
	var c sim.Context
	topo.Simulate(&c, &in)
	if want := sim.MaxCopies + 1; len(c.Actions) != want {
		t.Errorf("%d actions, want %d outputs", len(c.Actions), want)
	}
}

func TestMirrorsDoNotAllocate(t *testing.T) {
	topo := pathtest.MustParse(small + "vm tap a\nmirror m va both tap proto=17\nmirror n r both,before tap\nmirror o b both tap\ndscp va 46\n")
	in := topo.MustInject("va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1>2")
	var c sim.Context
	topo.Simulate(&c, &in)
	if c.Result != sim.ResultForward || len(c.Actions) < 6 {
		t.Fatalf("%s %s: %v", c.Result, c.Reason, c.Actions)
	}
	if n := testing.AllocsPerRun(100, func() { topo.Simulate(&c, &in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
