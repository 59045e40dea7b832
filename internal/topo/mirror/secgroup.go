package mirror

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// members marks the security groups to which a port brings its addresses.
func (d dirty) members(g *model.Graph, p *model.Port) {
	for _, id := range p.SecurityGroups {
		d.groups[id] = struct{}{}
	}
	if p.InDefault() {
		if s := defaultGroup(g, p.Tenant); s != nil {
			d.groups[s.ID] = struct{}{}
		}
	}
}

// defaultGroup finds a tenant's default group. When the name goes from one group to another, and these are told in another order than they were written in,
// the graph's index knows neither.
func defaultGroup(g *model.Graph, tenant string) *model.SecurityGroup {
	if s := g.Default(tenant); s != nil {
		return s
	}
	for o := range g.All(model.KindSecurityGroup) {
		if s := o.(*model.SecurityGroup); s.Name == model.DefaultGroup && s.Tenant == tenant {
			return s
		}
	}
	return nil
}

// securityGroup marks a group that came, went, or changed itself. Of the default group the ports do not say that they are in it.
func (d dirty) securityGroup(g *model.Graph, s *model.SecurityGroup) {
	d.security[s.ID], d.groups[s.ID] = struct{}{}, struct{}{}
	if s.Name != model.DefaultGroup {
		return
	}
	for o := range g.All(model.KindPort) {
		if p := o.(*model.Port); p.Tenant == s.Tenant && p.InDefault() {
			d.ports[p.ID] = struct{}{}
		}
	}
}

// securityGroups lists the groups that decide about a secured port; nil: none does.
func (b builder) securityGroups(p *model.Port) []uuid.UUID {
	if p.SecurityGroups == nil {
		if s := defaultGroup(b.graph, p.Tenant); s != nil {
			return []uuid.UUID{s.ID}
		}
		return nil
	}
	ids := append([]uuid.UUID{}, p.SecurityGroups...)
	sortIDs(ids)
	return ids
}

func (b builder) securityGroup(id uuid.UUID) *view.SecurityGroup {
	x, ok := get[*model.SecurityGroup](b.graph, id)
	if !ok || !b.part.has(view.ThingSecurity, id) {
		return nil
	}
	var in, out []*model.SecurityGroupRule
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindSecurityGroupRule) {
		switch r := o.(*model.SecurityGroupRule); {
		case r.GroupID != id: // it is the remote one
		case r.EtherType != model.IPv4 && r.EtherType != model.IPv6: // of a later version: it opens nothing
		case r.Direction == model.Ingress:
			in = append(in, r)
		case r.Direction == model.Egress:
			out = append(out, r)
		}
	}
	return &view.SecurityGroup{ID: id, Name: x.Name, Stateful: x.Stateful, Ingress: view.NewAllowed(in), Egress: view.NewAllowed(out)}
}

// members are the addresses of a security group's ports; nil when there is no such group.
func (b builder) members(id uuid.UUID, was *view.AddressGroup) *view.AddressGroup {
	x, ok := get[*model.SecurityGroup](b.graph, id)
	if !ok {
		return nil
	}
	var ports []*model.Port
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindPort) {
		ports = append(ports, o.(*model.Port))
	}
	if s := defaultGroup(b.graph, x.Tenant); s != nil && s.ID == id {
		for o := range b.graph.All(model.KindPort) {
			if p := o.(*model.Port); p.Tenant == x.Tenant && p.InDefault() {
				ports = append(ports, p)
			}
		}
	}
	return view.Members(id, x.Name, ports, was)
}

// recount gives each rule its counter: the one that it had, or a new one.
func recount(was, is *view.SecurityGroup) {
	rules := func(g *view.SecurityGroup) (in, out []view.Rule) {
		if g == nil {
			return nil, nil
		}
		return g.Ingress.Rules, g.Egress.Rules
	}
	wasIn, wasOut := rules(was)
	isIn, isOut := rules(is)
	had := slices.Concat(wasIn, wasOut) // a rule may have turned round
	keepHits(had, isIn)
	keepHits(had, isOut)
}
