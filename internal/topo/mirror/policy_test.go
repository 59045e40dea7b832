package mirror

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func policy() []model.Object {
	return []model.Object{
		&model.Chain{Meta: model.Meta{ID: id(80), Name: "in"}},
		&model.Chain{Meta: model.Meta{ID: id(81), Name: "sub"}},
		&model.PortGroup{Meta: model.Meta{ID: id(82)}},
		&model.AddressGroup{Meta: model.Meta{ID: id(83), Name: "g"}, Addresses: pfx("10.0.0.0/8", "fd00::1/128")},
		&model.Rule{Meta: model.Meta{ID: id(85)}, ChainID: id(80), Position: 20, Action: model.RuleDrop},
		dropRule(),
	}
}

func dropRule() *model.Rule {
	return &model.Rule{Meta: model.Meta{ID: id(84), Name: "first"}, ChainID: id(80), Position: 10, Action: model.RuleJump, JumpID: id(81),
		Match: model.Condition{Proto: 6, DstPorts: &model.Range{From: 80, To: 90}, Not: model.MatchDstPorts}}
}

func TestChains(t *testing.T) {
	r := start(t)
	r.next(t)
	r.txn(t, create(policy()...)...)
	s := r.next(t).Snapshot
	c := s.Chain(id(80))
	if c == nil || c.Name != "in" || len(c.Rules) != 2 || len(s.Chain(id(81)).Rules) != 0 {
		t.Fatalf("%+v", c)
	}
	first := c.Rules[0]
	if first.ID != id(84) || first.Verdict != view.VerdictJump || first.Jump != id(81) || first.Match.String() != "proto=6 !dst_ports=80-90" ||
		c.Rules[1].ID != id(85) || c.Rules[1].Verdict != view.VerdictDrop {
		t.Errorf("rules %+v", c.Rules)
	}
	if g := s.AddressGroup(id(83)); !g.Contains(netip.MustParseAddr("10.1.2.3")) || !g.Contains(netip.MustParseAddr("fd00::1")) || g.Contains(netip.MustParseAddr("11.0.0.0")) {
		t.Errorf("group %v", g.Addresses)
	}
	// The count outlives a change of the rule, and of its place.
	first.Counters.Hits.Add(3)
	changed := dropRule()
	changed.Position = 30
	r.txn(t, replace(changed))
	if last := r.next(t).Snapshot.Chain(id(80)).Rules[1]; last.ID != id(84) || last.Counters.Hits.Load() != 3 {
		t.Errorf("rule %+v", last)
	}
}

// TestUnknownActionDrops: a rule of a later version must not let through what it may be meant to stop.
func TestUnknownActionDrops(t *testing.T) {
	if r := rule(&model.Rule{Action: "mirror"}); r.Verdict != view.VerdictDrop {
		t.Errorf("verdict %s", r.Verdict)
	}
}

func TestPolicyTags(t *testing.T) {
	chain := func(n byte) tag.Tag { return tag.Tag{Kind: tag.Chain, ID: id(n)} }
	group := tag.Tag{Kind: tag.Group, ID: id(83)}
	member := func(a string) tag.Tag {
		return tag.Tag{Kind: tag.Group, ID: id(83), Addr: match.AddrFrom(netip.MustParseAddr(a))}
	}
	accept := dropRule()
	accept.Action, accept.JumpID = model.RuleAccept, uuid.Nil
	filtered := vm1Port()
	filtered.InboundFilterID = id(80)
	grouped := vm1Port()
	grouped.PortGroups = []uuid.UUID{id(82)}
	secured := vm1Port()
	secured.PortSecurity = true
	addresses := func(s ...string) store.Op {
		return replace(&model.AddressGroup{Meta: model.Meta{ID: id(83), Name: "g"}, Addresses: pfx(s...)})
	}
	for _, c := range []struct {
		name string
		op   store.Op
		want []tag.Tag
	}{
		{"rule", replace(accept), []tag.Tag{chain(80)}},
		{"rule goes", remove(&model.Rule{Meta: model.Meta{ID: id(85)}}), []tag.Tag{chain(80)}},
		{"rule comes", create(&model.Rule{Meta: model.Meta{ID: id(86)}, ChainID: id(81), Position: 1, Action: model.RuleDrop})[0], []tag.Tag{chain(81)}},
		{"name of a chain", replace(&model.Chain{Meta: model.Meta{ID: id(81), Name: "other"}}), []tag.Tag{chain(81)}},
		{"filter of a port", replace(filtered), []tag.Tag{{Kind: tag.Port, ID: vm1}}},
		{"group of a port", replace(grouped), []tag.Tag{{Kind: tag.Port, ID: vm1}}},
		{"security of a port", replace(secured), []tag.Tag{{Kind: tag.Port, ID: vm1}}},
		{"filter of a bridge", replace(&model.Bridge{Meta: model.Meta{ID: br, Name: "net"}, AdminStateUp: true, PostForwardingID: id(80)}), []tag.Tag{{Kind: tag.Device, ID: br}}},
		{"filter of a router", replace(&model.Router{Meta: model.Meta{ID: rt, Name: "gw"}, AdminStateUp: true, PreRoutingID: id(80)}), []tag.Tag{{Kind: tag.Device, ID: rt}}},
		{"members", addresses("10.0.0.0/8", "fd00::2/128"), []tag.Tag{member("fd00::1"), member("fd00::2")}},
		{"subnet", addresses("10.0.0.0/9", "fd00::1/128"), []tag.Tag{group}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t)
			r.next(t)
			r.txn(t, create(policy()...)...)
			r.next(t)
			r.txn(t, c.op)
			if got := r.next(t); !slices.Equal(got.Tags, c.want) {
				t.Errorf("tags\n%v\nwant\n%v", got.Tags, c.want)
			}
		})
	}
}
