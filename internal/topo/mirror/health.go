package mirror

import (
	"cmp"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// SetHealth says what is known of the members of load balancers, and who finds it out. It does not wait: Run takes the last one
// that was set. Safe for concurrent use.
func (m *Mirror) SetHealth(s health.State) {
	for {
		select {
		case m.news <- s:
			return
		default:
		}
		select {
		case <-m.news: // nobody has taken the older one
		default:
		}
	}
}

// checked takes a new state and marks what is built from it.
func (m *Mirror) checked(s health.State) dirty {
	m.health = s
	d := newDirty()
	for o := range m.graph.All(model.KindLoadBalancer) {
		d.balancers[o.GetMeta().ID] = struct{}{}
		d.checks(o.(*model.LoadBalancer).RouterID)
	}
	return d
}

// checks marks a router from which members are checked, or no longer.
func (d dirty) checks(router uuid.UUID) {
	d.routers[router], d.ports[health.Port(router)] = struct{}{}, struct{}{}
}

// monitored are the load balancers of a router with members that are checked, ordered by id.
func (b builder) monitored(router uuid.UUID) (list []*model.LoadBalancer) {
	for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindRouter, ID: router}, model.KindLoadBalancer) {
		l := o.(*model.LoadBalancer)
		if slices.ContainsFunc(l.Listeners, func(x model.Listener) bool {
			p, ok := get[*model.Pool](b.graph, x.PoolID)
			return ok && p.Monitor != nil
		}) {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *model.LoadBalancer) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	return list
}

// healthOf is the port by which members are checked from a router; Nil when none are, or nobody can.
func (b builder) healthOf(router uuid.UUID) uuid.UUID {
	if len(b.monitored(router)) == 0 || b.health.Elected(router) == uuid.Nil {
		return uuid.Nil
	}
	return health.Port(router)
}

// healthPort makes the port with an id, which no object has; nil: it is none.
func (b builder) healthPort(id uuid.UUID) *view.Port {
	for o := range b.graph.All(model.KindLoadBalancer) {
		router := o.(*model.LoadBalancer).RouterID
		if health.Port(router) != id || b.healthOf(router) != id {
			continue
		}
		r, ok := get[*model.Router](b.graph, router)
		if !ok {
			return nil
		}
		mac := model.PortMAC(id)
		return &view.Port{
			ID: id, Name: "health checks of " + r.Name, Router: router, AdminUp: true, Health: true, MAC: mac, LinkLocal: linkLocal(mac),
			Host: b.health.Elected(router), Interface: health.Interface(router), TunnelKey: b.monitored(router)[0].TunnelKey,
		}
	}
	return nil
}
