package mirror

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// TestTranslatedFollowsJumps: what passes a chain knows what the rules of the chains that it jumps to translate to,
// whichever came first.
func TestTranslatedFollowsJumps(t *testing.T) {
	five := netip.MustParseAddr("10.0.0.5")
	router := &model.Router{Meta: model.Meta{ID: rt, Name: "gw"}, AdminStateUp: true, PostRoutingID: id(80)}
	dnat := &model.Rule{Meta: model.Meta{ID: id(86)}, ChainID: id(81), Position: 1, Action: model.RuleDNAT, Then: model.RuleReturn,
		Targets: []model.NATTarget{{From: five, To: five}}}
	x := match.AddrFrom(five)
	noJump := dropRule()
	noJump.Action, noJump.JumpID = model.RuleDrop, [16]byte{}
	r := start(t)
	r.next(t)
	r.txn(t, append(create(policy()...), replace(router))...)
	r.next(t)
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"the rule comes", func() { r.txn(t, create(dnat)...) }, true},
		{"the jump goes", func() { r.txn(t, replace(noJump)) }, false},
		{"and comes again", func() { r.txn(t, replace(dropRule())) }, true},
		{"the rule goes", func() { r.txn(t, remove(dnat)) }, false},
	} {
		step.do()
		c := r.next(t)
		if got := c.Snapshot.Router(rt).Rules.HasDestination(&x); got != step.want {
			t.Errorf("%s: translates to %s: %v", step.what, five, got)
		}
		if !slices.Contains(c.Tags, tag.Tag{Kind: tag.Device, ID: rt}) {
			t.Errorf("%s: the router's flows stay: %v", step.what, c.Tags)
		}
	}
}

func TestRuleActions(t *testing.T) {
	five := netip.MustParseAddr("10.0.0.5")
	for _, c := range []struct {
		rule model.Rule
		want string
	}{
		{model.Rule{Action: model.RuleSNAT, Then: model.RuleContinue, Targets: []model.NATTarget{{From: five, To: five.Next(), Ports: &model.Range{From: 80, To: 90}}}},
			"snat to 10.0.0.5-10.0.0.6 port 80-90, continue"},
		{model.Rule{Action: model.RuleRevDNAT, Then: model.RuleAccept}, "rev_dnat, accept"},
		{model.Rule{Action: model.RulePushVLAN, VLAN: 7, Then: model.RuleReturn}, "push_vlan 7, return"},
		{model.Rule{Action: model.RulePopVLAN, Then: model.RuleAccept}, "pop_vlan, accept"},
		{model.Rule{Action: model.RuleSetDSCP, DSCP: new(uint8), Then: model.RuleContinue}, "set_dscp 0, continue"},
		{model.Rule{Action: model.RuleRedirect, Redirect: model.Redirect{PortID: id(9), Egress: true, FailOpen: true}},
			"redirect out of port " + id(9).String() + ", fail_open"},
		{model.Rule{Action: "mirror"}, "drop"},
	} {
		r := rule(&c.rule)
		if got := r.Action(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if r := rule(&model.Rule{Action: model.RuleSNAT}); r.Verdict != view.VerdictDrop {
		t.Errorf("without a verdict it is to %s", r.Verdict)
	}
}

// TestVLANOfAPort: what is seeded at an access port is in its VLAN alone, and the first one makes the bridge another.
func TestVLANOfAPort(t *testing.T) {
	r := start(t)
	before := r.next(t).Snapshot.Bridge(br)
	p := vm1Port()
	p.VLAN = 12
	r.txn(t, replace(p))
	c := r.next(t)
	b := c.Snapshot.Bridge(br)
	if before.VLANAware || !b.VLANAware || c.Snapshot.Port(vm1).VLAN != 12 {
		t.Errorf("%+v", b)
	}
	if at := b.MACs[view.LinkMAC{MAC: vmMAC, VLAN: 12}]; at != vm1 || len(b.MACs) != len(before.MACs) {
		t.Errorf("seeded MACs %v", b.MACs)
	}
	for _, want := range []tag.Tag{
		{Kind: tag.Port, ID: vm1}, {Kind: tag.Device, ID: br}, {Kind: tag.MACEntry, ID: br, MAC: vmMAC}, {Kind: tag.MACEntry, ID: br, MAC: vmMAC, VLAN: 12},
	} {
		if !slices.Contains(c.Tags, want) {
			t.Errorf("no tag %s among %v", want, c.Tags)
		}
	}
}
