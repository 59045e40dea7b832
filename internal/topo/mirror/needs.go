package mirror

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// needs collects what a thing is built from.
type needs struct {
	builder
	bundles []model.Bundle
	along   []view.Thing
}

// needs lists the bundles that a thing is built from, as far as those that are loaded tell: who loads them asks again. along are things that are
// read together with it.
func (b builder) needs(t view.Thing) (bundles []model.Bundle, along []view.Thing) {
	n := &needs{builder: b}
	switch t.Kind {
	case view.ThingPort:
		n.port(t.ID)
	case view.ThingBridge:
		n.add(model.BundleBridge, t.ID)
		if x, ok := get[*model.Bridge](b.graph, t.ID); ok {
			n.chains(x.PreForwardingID, x.PostForwardingID)
		}
	case view.ThingRouter:
		n.router(t.ID)
	case view.ThingChain:
		n.add(model.BundleChain, t.ID)
	case view.ThingGroup:
		n.group(t.ID)
	case view.ThingSecurity:
		n.add(model.BundleSecurity, t.ID)
	case view.ThingBalancer:
		n.bundles = append(n.bundles, model.AllBalancers)
		if l, ok := get[*model.LoadBalancer](b.graph, t.ID); ok {
			n.pools(l)
		}
	}
	return n.bundles, n.along
}

func (n *needs) add(k model.BundleKind, id uuid.UUID) {
	if b := (model.Bundle{Kind: k, ID: id}); id != uuid.Nil && !slices.Contains(n.bundles, b) {
		n.bundles = append(n.bundles, b)
	}
}

func (n *needs) port(id uuid.UUID) {
	p, ok := get[*model.Port](n.graph, id)
	if !ok {
		for o := range n.graph.All(model.KindLoadBalancer) {
			if router := o.(*model.LoadBalancer).RouterID; health.Port(router) == id {
				n.router(router)
				return
			}
		}
		n.add(model.BundlePort, id)
		return
	}
	device := p.Device()
	if n.bundles = append(n.bundles, device); !n.part.loaded(device) {
		n.add(model.BundlePort, id)
	}
	n.chains(p.InboundFilterID, p.OutboundFilterID)
	n.add(model.BundleQoSPolicy, p.QoSPolicyID)
	for _, g := range p.PortGroups {
		n.add(model.BundlePortGroup, g)
	}
	for _, id := range n.siblings(p) {
		n.along = append(n.along, view.Thing{Kind: view.ThingPort, ID: id})
	}
	if p.InDefault() {
		n.bundles = append(n.bundles, model.DefaultOf(p.Tenant))
	}
}

func (n *needs) router(id uuid.UUID) {
	n.add(model.BundleRouter, id)
	if x, ok := get[*model.Router](n.graph, id); ok {
		n.chains(x.PreRoutingID, x.PostRoutingID)
	}
	for o := range n.graph.ReferrersOf(model.Key{Kind: model.KindRouter, ID: id}, model.KindLoadBalancer) {
		n.pools(o.(*model.LoadBalancer))
	}
}

func (n *needs) pools(l *model.LoadBalancer) {
	for _, x := range l.Listeners {
		n.add(model.BundlePool, x.PoolID)
	}
}

// chains adds chains, and those that they jump to.
func (n *needs) chains(ids ...uuid.UUID) {
	for len(ids) > 0 {
		id := ids[0]
		ids = ids[1:]
		before := len(n.bundles)
		if n.add(model.BundleChain, id); len(n.bundles) == before {
			continue
		}
		for _, r := range n.rulesOf(id) {
			if r.Action == model.RuleJump {
				ids = append(ids, r.JumpID)
			}
		}
	}
}

// group adds what tells the addresses of a group, which may be one of either kind.
func (n *needs) group(id uuid.UUID) {
	s, secures := get[*model.SecurityGroup](n.graph, id)
	if _, ok := get[*model.AddressGroup](n.graph, id); ok || !secures {
		n.add(model.BundleAddressGroup, id)
		if ok {
			return
		}
	}
	n.add(model.BundleSecurity, id)
	n.add(model.BundleMembers, id)
	if secures && s.Name == model.DefaultGroup {
		n.bundles = append(n.bundles, model.DefaultOf(s.Tenant))
	}
}
