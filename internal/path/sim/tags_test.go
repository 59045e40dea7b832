package sim_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// TestTagsAreComplete: when a change of learnt state makes a packet's outcome different, one of
// the tags of the change is among those of the outcome.
func TestTagsAreComplete(t *testing.T) {
	for name, text := range map[string]string{"plain": rich, "groups": grouped, "mirrors": mirrored + "dscp va 46\n"} {
		t.Run(name, func(t *testing.T) { tagsAreComplete(t, text) })
	}
}

func tagsAreComplete(t *testing.T, text string) {
	topo := pathtest.MustParse(text)
	differed := 0
	rapid.Check(t, func(t *rapid.T) {
		clk := &clock.Manual{}
		s := state.New(state.DefaultConfig(), clk)
		g := gen{t, topo}
		run := func(c *sim.Context, in pathtest.Injection) {
			c.Reset()
			c.Topo, c.State, c.Packet = topo, s, in.View
			sim.Simulate(c, in.Port)
		}
		var before, after sim.Context
		for range 200 {
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "vc", "up")), View: g.view()}
			run(&before, in)
			var changed []tag.Tag
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				changed = append(changed, g.change(s, clk)...)
			}
			if rapid.Bool().Draw(t, "connect") { // what the packet itself would have begun, or an answer to it
				tu := match.Tuple{Src: in.View.Key.Src, Dst: in.View.Key.Dst, SrcPort: in.View.Key.SrcPort, DstPort: in.View.Key.DstPort, Proto: in.View.Key.Proto}
				changed = append(changed, connect(s, pathtest.ID(pick(t, "tracker", "va", "vb")), tu, rapid.Bool().Draw(t, "answer"))...)
			}
			run(&after, in)
			if before.Result == sim.ResultNotYet || before.Result == sim.ResultConsumed || before.UserSpace {
				continue // no flow
			}
			if before.Result == after.Result && before.Reason == after.Reason && slices.Equal(before.Actions, after.Actions) {
				continue
			}
			differed++
			if !slices.ContainsFunc(changed, func(x tag.Tag) bool { return slices.Contains(before.Tags, x) }) {
				t.Fatalf("%s %s %+v became %s %s %+v\ntags %v\nchanged %v", before.Result, before.Reason, before.Actions,
					after.Result, after.Reason, after.Actions, before.Tags, changed)
			}
		}
	})
	if differed < 10 && !testing.Short() { // few packets, few differences
		t.Errorf("only %d outcomes differed: the generator has become too narrow", differed)
	}
}

func connect(s *state.Tables, device uuid.UUID, t match.Tuple, answer bool) []tag.Tag {
	if answer {
		t = t.Reverse()
	}
	if s.AddConnection(conntrack.Conn{Kind: tag.Connection, Device: device, Orig: t, Reply: t.Reverse(), Owner: device}) != conntrack.Added {
		return nil
	}
	r := t.Reverse()
	return []tag.Tag{tag.Of(tag.Connection, device, &t), tag.Of(tag.Connection, device, &r)}
}

// change changes the state and returns the tags that say so.
func (g gen) change(s *state.Tables, clk *clock.Manual) []tag.Tag {
	t := g.t
	news := func(tg tag.Tag, is, _ bool) []tag.Tag {
		if is {
			return []tag.Tag{tg}
		}
		return nil
	}
	bridge := func() uuid.UUID { return pathtest.ID(pick(t, "bridge", "a", "b", "c")) }
	switch pick(t, "change", "mac", "mac", "neighbour", "heard", "forget", "time") {
	case "mac":
		return news(s.LearnMAC(bridge(), pick(t, "vid", uint16(0), 7), g.mac("mac"), pathtest.ID(pick(t, "at", "va", "vc", "vd", "vb"))))
	case "neighbour":
		return news(s.LearnNeighbour(pathtest.ID(pick(t, "at", "up", "r:b", "q:c")), g.addr("addr", rapid.Bool().Draw(t, "six")), g.mac("mac"), pathtest.ID("vc")))
	case "heard":
		return news(s.LearnBridgeNeighbour(bridge(), 0, g.addr("addr", rapid.Bool().Draw(t, "six")), g.mac("mac"), pathtest.ID("vc")))
	case "forget":
		return s.Forget(pathtest.ID(pick(t, "gone", "va", "vc", "vd", "up", "r:b", "a")))
	default:
		s.Resolve(pathtest.ID("up"), addr("203.0.113.1"), pathtest.ID("up"))
		clk.Advance(pick(t, "time", time.Second, 20*time.Second, 100*time.Second))
		_, changed := s.Tick()
		return changed
	}
}
