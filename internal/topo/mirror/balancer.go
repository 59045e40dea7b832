package mirror

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// balancer marks a load balancer, its router, and the ports on whose links its address may be.
func (d dirty) balancer(g *model.Graph, l *model.LoadBalancer) {
	d.balancers[l.ID] = struct{}{}
	d.checks(l.RouterID)
	for p := range g.ReferrersOf(model.Key{Kind: model.KindRouter, ID: l.RouterID}, model.KindPort) {
		d.ports[p.GetMeta().ID] = struct{}{}
	}
}

// pool marks the load balancers that a pool serves, and their routers, which know the members' addresses.
func (d dirty) pool(g *model.Graph, id uuid.UUID) {
	for o := range g.ReferrersOf(model.Key{Kind: model.KindPool, ID: id}, model.KindLoadBalancer) {
		l := o.(*model.LoadBalancer)
		d.balancers[l.ID] = struct{}{}
		d.checks(l.RouterID)
	}
}

// vips are the load balancers' addresses that are on the link of a router port, for which it answers there.
func (b builder) vips(p *model.Port) (list []match.Addr) {
	for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindRouter, ID: p.RouterID}, model.KindLoadBalancer) {
		a := o.(*model.LoadBalancer).Address
		for _, x := range p.Addresses {
			if x.Contains(a) {
				list = append(list, match.AddrFrom(a))
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b match.Addr) int { return slices.Compare(a[:], b[:]) })
	return list
}

// balancing adds to a router what concerns its load balancers.
func (b builder) balancing(v *view.Router) {
	v.Health = b.healthOf(v.ID)
	for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindRouter, ID: v.ID}, model.KindLoadBalancer) {
		if v.VIPs == nil {
			v.VIPs, v.Backends = make(map[match.Addr]uuid.UUID), make(map[match.Addr]struct{})
		}
		l := o.(*model.LoadBalancer)
		v.VIPs[match.AddrFrom(l.Address)] = l.ID
		for _, x := range l.Listeners {
			for m := range b.graph.ReferrersOf(model.Key{Kind: model.KindPool, ID: x.PoolID}, model.KindPoolMember) {
				v.Backends[match.AddrFrom(m.(*model.PoolMember).Address)] = struct{}{}
			}
		}
	}
}

func (b builder) balancer(id uuid.UUID) *view.LoadBalancer {
	l, ok := get[*model.LoadBalancer](b.graph, id)
	if !ok || !b.part.has(view.ThingBalancer, id) {
		return nil
	}
	v := &view.LoadBalancer{ID: id, Name: l.Name, Router: l.RouterID, AdminUp: l.AdminStateUp, Address: match.AddrFrom(l.Address)}
	for _, x := range l.Listeners {
		if p, ok := get[*model.Pool](b.graph, x.PoolID); ok {
			v.Listeners = append(v.Listeners, view.Listener{Proto: x.Protocol, Port: x.Port, Pool: b.pool(p, l.RouterID)})
		}
	}
	return v
}

func (b builder) pool(p *model.Pool, router uuid.UUID) *view.Pool {
	v := &view.Pool{ID: p.ID, Name: p.Name, Monitor: p.Monitor}
	if p.SessionPersistence == model.PersistenceSourceIP {
		v.Persistent = time.Duration(p.PersistenceTimeout) * time.Second
	}
	for o := range b.graph.ReferrersOf(model.KeyOf(p), model.KindPoolMember) {
		m := o.(*model.PoolMember)
		x := view.Member{ID: m.ID, Name: m.Name, Address: match.AddrFrom(m.Address), Port: m.Port}
		if m.AdminStateUp {
			x.Weight = m.Weight
		}
		if p.Monitor != nil {
			status, known := b.health.Members[router][m.ID]
			x.Down = known && !status.Up
			if x.MonitorPort = m.MonitorPort; x.MonitorPort == 0 {
				x.MonitorPort = m.Port
			}
		}
		v.Members = append(v.Members, view.NewMember(x))
	}
	slices.SortFunc(v.Members, func(a, b view.Member) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return v
}

// balancers continues next with load balancers: their part of s and of the tags.
func (m *Mirror) balancers(s, old *view.Snapshot, d dirty) (tags []tag.Tag) {
	b := m.builder()
	for _, id := range sorted(d.balancers) {
		was, is := old.LoadBalancer(id), b.balancer(id)
		if reflect.DeepEqual(was, is) {
			continue
		}
		s.Balancers = with(s.Balancers, old.Balancers, id, is)
		tags = append(tags, balancerTags(id, was, is)...)
	}
	return tags
}

// balancerTags names what differs between two states of a load balancer. Connections depend on it and on their member; new ones on
// all members.
func balancerTags(id uuid.UUID, was, is *view.LoadBalancer) (tags []tag.Tag) {
	if !sameBalancer(was, is) {
		tags = append(tags, tag.Tag{Kind: tag.Balancer, ID: id})
	}
	a, b := servers(was), servers(is)
	if !reflect.DeepEqual(a, b) {
		tags = append(tags, tag.Tag{Kind: tag.Members, ID: id})
	}
	serves := func(of map[server]view.Member) map[server]bool {
		m := make(map[server]bool)
		for k, x := range of {
			m[k] = x.Down
		}
		return m
	}
	order := func(a, b server) int {
		return cmp.Or(slices.Compare(a.addr[:], b.addr[:]), cmp.Compare(a.port, b.port))
	}
	seen := make(map[tag.Tag]bool) // a member of two pools has one tag
	for _, x := range changedKeys(serves(a), serves(b), order) {
		if t := tag.OfMember(id, x.addr, x.port); !seen[t] {
			seen[t] = true
			tags = append(tags, t)
		}
	}
	return tags
}

// sameBalancer compares all but members.
func sameBalancer(a, b *view.LoadBalancer) bool {
	if a == nil || b == nil {
		return a == b
	}
	bare := func(l view.LoadBalancer) view.LoadBalancer {
		l.Listeners = slices.Clone(l.Listeners)
		for i := range l.Listeners {
			p := *l.Listeners[i].Pool
			p.Members = nil
			l.Listeners[i].Pool = &p
		}
		return l
	}
	return reflect.DeepEqual(bare(*a), bare(*b))
}

type server struct {
	pool uuid.UUID
	addr match.Addr
	port uint16
}

func servers(l *view.LoadBalancer) map[server]view.Member {
	all := make(map[server]view.Member)
	if l == nil {
		return all
	}
	for i := range l.Listeners {
		for _, m := range l.Listeners[i].Members {
			all[server{l.Listeners[i].ID, m.Address, m.Port}] = m
		}
	}
	return all
}
