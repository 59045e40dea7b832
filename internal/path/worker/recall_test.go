package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// from is the first packet of cli's connection to web from a port.
func from(port int, rest string) string {
	return fmt.Sprintf("cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=%d>80 %s", port, rest)
}

// TestRecall: what was decided twice is not simulated for a third time, and all that comes of it is there.
func TestRecall(t *testing.T) {
	r := newRig(t, secured, Config{})
	for i := range 5 {
		r.in(from(1000+i, ""))
		r.turn()
	}
	if n := r.w.recall.made; n != 3 {
		t.Errorf("%d decisions without a simulation", n)
	}
	if len(r.sent) != 5 || r.flows() != 10 || r.tables.Stats().Connections != 10 {
		t.Fatalf("%d delivered, %d flows, %+v", len(r.sent), r.flows(), r.tables.Stats())
	}
	for _, s := range r.sent {
		r.answer(s)
	}
	if n := r.w.Counts().In; n != 5 || len(r.sent) != 10 {
		t.Errorf("%d misses, %d delivered", n, len(r.sent))
	}
	for e := range r.w.Flows().Entries() {
		if n := len(slices.DeleteFunc(slices.Clone(e.Kept()), func(tg tag.Tag) bool { return tg.Kind != tag.Connection })); n != 2 {
			t.Errorf("the flow of %s holds %d connections", e.Key(), n)
		}
	}
	for _, l := range r.w.passed.lists {
		if l.flows != 5 {
			t.Errorf("a list of rules has %d flows", l.flows)
		}
	}
}

// TestNotRecalled: each packet is another case than what is remembered.
func TestNotRecalled(t *testing.T) {
	group := tag.Tag{Kind: tag.Chain, ID: pathtest.ID("web")}
	for name, c := range map[string]struct {
		then    string
		change  func(*rig)
		dropped drop.Reason
	}{
		"another flag":          {from(1005, "flags=A"), nil, drop.None},
		"flags of no first":     {from(1005, "flags=F"), nil, drop.ConnInvalid},
		"known, without a flow": {from(1003, ""), (*rig).dropFlows, drop.None},
		"another service":       {strings.Replace(from(1005, ""), ">80", ">81", 1), nil, drop.GroupDrop},
		"a rule is gone": {from(1005, ""), func(r *rig) {
			r.topo.Revoke("web-1")
			r.changed(group)
		}, drop.GroupDrop},
		"the group is not loaded any more": {from(1005, ""), func(r *rig) {
			r.dropFlows()
			r.w.Unused([]view.Thing{{Kind: view.ThingSecurity, ID: group.ID}}, func(view.Thing) { t.Error("flows depend on it") })
		}, drop.None},
		"watched": {from(1005, ""), func(r *rig) { r.w.Watch(&Watcher{Seen: func(*trace.Node) bool { return true }}) }, drop.None},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, secured, Config{})
			for i := range 4 {
				r.in(from(1000+i, ""))
				r.turn()
			}
			if r.w.recall.made != 2 {
				t.Fatalf("%d decisions without a simulation", r.w.recall.made)
			}
			if c.change != nil {
				c.change(r)
			}
			sent, before := len(r.sent), r.w.Counts().Dropped[c.dropped]
			r.in(c.then)
			r.turn()
			if r.w.recall.made != 2 {
				t.Error("it was recalled")
			}
			if c.dropped == drop.None && len(r.sent) != sent+1 || c.dropped != drop.None && r.w.Counts().Dropped[c.dropped] != before+1 {
				t.Errorf("%d delivered, dropped %v", len(r.sent)-sent, r.w.Counts().Dropped)
			}
		})
	}
}

// dropFlows has all flows go, but what they were decided by stay.
func (r *rig) dropFlows() {
	for _, p := range r.topo.Ports {
		r.w.flows.InvalidatePort(r.number(p.Interface))
	}
}

// TestPortIsNotRecalled: a port of the same number may be another one.
func TestPortIsNotRecalled(t *testing.T) {
	r := newRig(t, secured, Config{})
	for i := range 3 {
		r.in(from(1000+i, ""))
		r.turn()
	}
	in, no := r.topo.MustInject(from(1005, "")), r.number("tap-cli")
	v, _ := packet.Parse(in.View.Frame, no)
	if _, ok := r.w.recalled(&v, in.Port, packet.GSO{}); !ok {
		t.Fatal("not recalled before")
	}
	if _, ok := r.w.recalled(&v, pathtest.ID("other"), packet.GSO{}); ok {
		t.Error("recalled for another virtual port")
	}
	r.w.ForgetPort(no)
	if _, ok := r.w.recalled(&v, in.Port, packet.GSO{}); ok {
		t.Error("recalled after the port has gone")
	}
	r.forgetTokens()
}

// outcome is what settle goes on with.
type outcome struct {
	actions, virtual string
	context          string
	tags             []tag.Tag
	learn            []sim.Learn
}

func (w *Worker) outcome(d decision) outcome {
	c := &w.sim
	return outcome{
		d.actions.String(), fmt.Sprint(c.Actions),
		fmt.Sprint(d.result, d.reason, c.Result, c.Reason, c.Mask, c.UserSpace, c.Stateful, c.Rules, len(c.Generated), len(c.Logged)),
		slices.Clone(c.Tags), slices.Clone(c.Learn),
	}
}

// TestRecalledIsDecided: in random networks that change, what is recalled is what a simulation decides.
func TestRecalledIsDecided(t *testing.T) {
	recalled := 0
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Replace(gateway, "masquerade r:out\nfloating r:out 203.0.113.11 10.0.1.11\n", "", 1) +
			"secure a\ngroups a open\nallow open in\nallow open out\nallow some in proto=6 ports=80\nallow some out proto=17\nallow some in proto=17\nallow some in proto=6 ports=90-100\n"
		for i := 1; i < len(pieces); i++ {
			if rapid.Bool().Draw(rt, pieces[i]) {
				text += pieces[i]
			}
		}
		r := newRig(t, text, Config{})
		for range rapid.IntRange(20, 60).Draw(rt, "packets") {
			from, to, _ := strings.Cut(rapid.SampledFrom([]string{
				"a eth=a>r:in ip=10.0.1.10|203.0.113.9", "world eth=world>r:out ip=203.0.113.9|10.0.1.10",
				"world eth=world>r:out ip=203.0.113.9|10.0.1.11", "a eth=a>r:in ip=10.0.1.10|203.0.113.11",
			}).Draw(rt, "from and to"), "|")
			kind := rapid.SampledFrom([]string{"tcp", "tcp", "tcp", "udp", "udp", "udp", "tcp flags=A", "tcp flags=F", "udp len=700", "udp ttl=1", "udp ttl=2"}).Draw(rt, "kind")
			port, rest, _ := strings.Cut(from, " ")
			line := fmt.Sprintf("%s %s %s>%s ports=%d>%d", port, kind, rest, to, rapid.IntRange(1000, 1099).Draw(rt, "port"), rapid.SampledFrom([]int{80, 80, 80, 81, 67, 68, 90, 95, 100, 101, 1000}).Draw(rt, "service"))
			in := r.topo.MustInject(line)
			v, _ := packet.Parse(in.View.Frame, r.number("tap-"+port))
			if d, ok := r.w.recalled(&v, in.Port, packet.GSO{}); ok {
				recalled++
				got := r.w.outcome(d)
				want := r.w.outcome(r.w.decide(&v, in.Port, packet.GSO{}))
				if got.actions != want.actions || got.virtual != want.virtual || got.context != want.context || !slices.Equal(got.tags, want.tags) || !slices.Equal(got.learn, want.learn) {
					rt.Fatalf("%s\n%s\nrecalled: %+v\ndecided:  %+v", text, line, got, want)
				}
			}
			r.in(line)
			r.turn()
			if rapid.IntRange(0, 19).Draw(rt, "a rule goes") == 19 {
				name := rapid.SampledFrom([]string{"open", "some"}).Draw(rt, "group")
				r.topo.Revoke(fmt.Sprintf("%s-%d", name, rapid.IntRange(1, 4).Draw(rt, "rule")))
				r.changed(tag.Tag{Kind: tag.Chain, ID: pathtest.ID(name)})
			}
		}
		r.check()
	})
	if recalled < 100 && !testing.Short() {
		t.Errorf("%d recalled: the networks have become too narrow", recalled)
	}
	t.Logf("%d recalled", recalled)
}
