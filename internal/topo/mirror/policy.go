package mirror

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// policy continues next with chains and groups: their part of s and of the tags.
func (m *Mirror) policy(s, old *view.Snapshot, d dirty) []tag.Tag {
	b := m.builder()
	var tags []tag.Tag
	for _, id := range sorted(d.chains) {
		was, is := old.Chain(id), b.chain(id)
		count(was, is)
		if reflect.DeepEqual(was, is) {
			continue
		}
		s.Chains = with(s.Chains, old.Chains, id, is)
		tags = append(tags, tag.Tag{Kind: tag.Chain, ID: id})
	}
	for _, id := range sorted(d.security) {
		was, is := old.SecurityGroup(id), b.securityGroup(id)
		recount(was, is)
		if reflect.DeepEqual(was, is) {
			continue
		}
		s.Security = with(s.Security, old.Security, id, is)
		tags = append(tags, tag.Tag{Kind: tag.Chain, ID: id})
	}
	for _, id := range sorted(d.groups) {
		was := old.AddressGroup(id)
		is := b.group(id, was)
		if ts := groupTags(id, was, is); len(ts) > 0 {
			s.Groups = with(s.Groups, old.Groups, id, is)
			tags = append(tags, ts...)
		}
	}
	return tags
}

// count gives each rule its counter: the one that it had, or a new one.
func count(was, is *view.Chain) {
	var before, now []view.Rule
	if was != nil {
		before = was.Rules
	}
	if is != nil {
		now = is.Rules
	}
	keepHits(before, now)
}

func keepHits(was, is []view.Rule) {
	had := make(map[uuid.UUID]*view.RuleCounters)
	for i := range was {
		had[was[i].ID] = was[i].Counters
	}
	for i := range is {
		r := &is[i]
		if r.Counters = had[r.ID]; r.Counters == nil {
			r.Counters = new(view.RuleCounters)
		}
	}
}

func (b builder) chain(id uuid.UUID) *view.Chain {
	x, ok := get[*model.Chain](b.graph, id)
	if !ok || !b.part.has(view.ThingChain, id) {
		return nil
	}
	v := &view.Chain{ID: id, Name: x.Name}
	for _, r := range b.rulesOf(id) {
		v.Rules = append(v.Rules, rule(r))
	}
	return v
}

var verdicts = map[model.RuleAction]view.Verdict{
	model.RuleAccept: view.VerdictAccept, model.RuleDrop: view.VerdictDrop, model.RuleReject: view.VerdictReject,
	model.RuleJump: view.VerdictJump, model.RuleReturn: view.VerdictReturn, model.RuleContinue: view.VerdictContinue,
	model.RuleRedirect: view.VerdictRedirect,
}

func rule(r *model.Rule) view.Rule {
	v := view.Rule{ID: r.ID, Name: r.Name, Position: r.Position, Match: view.NewCondition(&r.Match), Jump: r.JumpID, Log: r.Log}
	verdict := r.Action
	if r.Action.Alters() {
		verdict = r.Then
	}
	var known bool
	if v.Verdict, known = verdicts[verdict]; !known {
		// Of a later version, or written by hand: what nobody understands must not open a door.
		v.Verdict = view.VerdictDrop
	}
	switch r.Action {
	case model.RuleDNAT, model.RuleSNAT, model.RuleRevDNAT, model.RuleRevSNAT:
		v.NAT = nat(r)
	case model.RulePushVLAN:
		v.VLAN = view.VLANChange(r.VLAN)
	case model.RulePopVLAN:
		v.VLAN = view.PopVLAN
	case model.RuleSetDSCP:
		v.DSCP = r.DSCP
	case model.RuleRedirect:
		v.Redirect = view.Redirect{Port: r.Redirect.PortID, Egress: r.Redirect.Egress, FailOpen: r.Redirect.FailOpen}
	}
	return v
}

func nat(r *model.Rule) *view.NAT {
	var ts []view.Target
	for _, t := range r.Targets {
		x := view.Target{From: match.AddrFrom(t.From), To: match.AddrFrom(t.To)}
		if t.Ports != nil {
			x.Lo, x.Hi = t.Ports.From, t.Ports.To
		}
		ts = append(ts, x)
	}
	return view.NewNAT(r.Action == model.RuleSNAT || r.Action == model.RuleRevSNAT, r.Action == model.RuleRevDNAT || r.Action == model.RuleRevSNAT, ts)
}

// translated collects what the rules of chains, and of those that they jump to, translate to.
func (b builder) translated(chains ...uuid.UUID) *view.Translated {
	t := &view.Translated{}
	seen := map[uuid.UUID]bool{uuid.Nil: true}
	for len(chains) > 0 {
		id := chains[0]
		chains = chains[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		for _, r := range b.rulesOf(id) {
			switch r.Action {
			case model.RuleJump:
				chains = append(chains, r.JumpID)
			case model.RuleDNAT, model.RuleSNAT:
				t.Add(nat(r))
			}
		}
	}
	return t.OrNil()
}

// rulesOf lists a chain's rules in their order.
func (b builder) rulesOf(chain uuid.UUID) []*model.Rule {
	var rs []*model.Rule
	for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindChain, ID: chain}, model.KindRule) {
		if r := o.(*model.Rule); r.ChainID == chain {
			rs = append(rs, r)
		}
	}
	slices.SortFunc(rs, func(a, b *model.Rule) int { return cmp.Compare(a.Position, b.Position) })
	return rs
}

// filtered marks what passes a chain, directly or by jumps.
func (d dirty) filtered(g *model.Graph, chain uuid.UUID, seen map[uuid.UUID]bool) {
	if seen[chain] {
		return
	}
	seen[chain] = true
	for _, k := range []model.Kind{model.KindPort, model.KindBridge, model.KindRouter} {
		for o := range g.ReferrersOf(model.Key{Kind: model.KindChain, ID: chain}, k) {
			if p, ok := o.(*model.Port); ok {
				d.ports[p.ID] = struct{}{}
			} else {
				d.add(g, o)
			}
		}
	}
	for o := range g.ReferrersOf(model.Key{Kind: model.KindChain, ID: chain}, model.KindRule) {
		if r := o.(*model.Rule); r.JumpID == chain {
			d.filtered(g, r.ChainID, seen)
		}
	}
}

func (b builder) group(id uuid.UUID, was *view.AddressGroup) *view.AddressGroup {
	if !b.part.has(view.ThingGroup, id) {
		return nil
	}
	x, ok := get[*model.AddressGroup](b.graph, id)
	if !ok {
		return b.members(id, was)
	}
	return view.NewAddressGroup(id, x.Name, slices.Clone(x.Addresses), was)
}

// groupTags names what differs between two states of a group; nil: none. A single address that comes or
// goes concerns the flows that asked for it; a subnet, all that asked.
func groupTags(id uuid.UUID, was, is *view.AddressGroup) []tag.Tag {
	if was == nil && is == nil {
		return nil
	}
	var tags []tag.Tag
	whole := was == nil || is == nil || was.Name != is.Name
	went, came := was.Diff(is)
	for _, p := range append(went, came...) {
		if p.IsSingleIP() {
			tags = append(tags, tag.Tag{Kind: tag.Group, ID: id, Addr: match.AddrFrom(p.Addr())})
		} else {
			whole = true
		}
	}
	if whole {
		return []tag.Tag{{Kind: tag.Group, ID: id}}
	}
	return tags
}
