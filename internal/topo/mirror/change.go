package mirror

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// dirty collects what may look different after the events since the last snapshot. It is filled
// from the objects before and after each event.
type dirty struct {
	ports, bridges, routers, chains, groups, security, hosts, balancers map[uuid.UUID]struct{}
}

func newDirty() dirty {
	set := func() map[uuid.UUID]struct{} { return make(map[uuid.UUID]struct{}) }
	return dirty{set(), set(), set(), set(), set(), set(), set(), set()}
}

// add marks what is built from o: itself, and what its neighbours in g have of it.
func (d dirty) add(g *model.Graph, o model.Object) {
	switch o := o.(type) {
	case *model.Bridge:
		d.bridges[o.ID] = struct{}{}
	case *model.Router:
		d.routers[o.ID] = struct{}{}
	case *model.Port:
		d.port(o)
		d.members(g, o)
		for _, id := range o.PortGroups {
			if pg, ok := get[*model.PortGroup](g, id); ok && pg.Stateful {
				d.siblings(g, id)
			}
		}
		if peer, ok := get[*model.Port](g, o.PeerID); ok {
			d.port(peer) // a bridge knows the MAC and the addresses of peer router ports
		}
	case *model.Chain:
		d.chains[o.ID] = struct{}{}
	case *model.Rule:
		d.chains[o.ChainID] = struct{}{}
		if o.Action == model.RuleDNAT || o.Action == model.RuleSNAT || o.Action == model.RuleJump && (builder{graph: g}).translated(o.JumpID) != nil {
			d.filtered(g, o.ChainID, map[uuid.UUID]bool{}) // what passes the chain has answers to translate back
		}
	case *model.PortGroup:
		d.siblings(g, o.ID)
	case *model.AddressGroup:
		d.groups[o.ID] = struct{}{}
	case *model.SecurityGroup:
		d.securityGroup(g, o)
	case *model.SecurityGroupRule:
		d.security[o.GroupID] = struct{}{}
	case *model.Subnet:
		d.bridges[o.BridgeID] = struct{}{}
		for p := range g.ReferrersOf(model.Key{Kind: model.KindBridge, ID: o.BridgeID}, model.KindPort) {
			if peer, ok := get[*model.Port](g, p.(*model.Port).PeerID); ok {
				d.port(peer) // a router on the link knows its MTU
			}
		}
	case *model.Mirror:
		d.mirror(g, o)
	case *model.QoSPolicy:
		for p := range g.ReferrersOf(model.KeyOf(o), model.KindPort) {
			d.port(p.(*model.Port))
		}
	case *model.Host:
		d.hosts[o.ID] = struct{}{}
	case *model.Route:
		d.routers[o.RouterID] = struct{}{}
	case *model.LoadBalancer:
		d.balancer(g, o)
	case *model.Pool:
		d.pool(g, o.ID)
	case *model.PoolMember:
		d.pool(g, o.PoolID)
	case *model.FloatingIP:
		if p, ok := get[*model.Port](g, o.PortID); ok {
			d.port(p)
		}
	case *model.Binding:
		if p, ok := get[*model.Port](g, o.PortID); ok {
			d.port(p)
		}
	}
}

// siblings marks the ports of a port group.
func (d dirty) siblings(g *model.Graph, group uuid.UUID) {
	for p := range g.ReferrersOf(model.Key{Kind: model.KindPortGroup, ID: group}, model.KindPort) {
		d.ports[p.GetMeta().ID] = struct{}{}
	}
}

func (d dirty) port(p *model.Port) {
	d.ports[p.ID] = struct{}{}
	if p.BridgeID != uuid.Nil {
		d.bridges[p.BridgeID] = struct{}{}
	}
	if p.RouterID != uuid.Nil {
		d.routers[p.RouterID] = struct{}{}
	}
}

// next builds the snapshot after old, and names what changed. Everything that is not dirty is
// shared with old; the maps are copied when one of their entries changes.
func (m *Mirror) next(old *view.Snapshot, d dirty, revision int64) (*view.Snapshot, []tag.Tag) {
	s := &view.Snapshot{Revision: revision, Partial: old.Partial, Absent: old.Absent, Ports: old.Ports, Bridges: old.Bridges, Routers: old.Routers, Chains: old.Chains, Groups: old.Groups, Security: old.Security, Hosts: old.Hosts,
		Balancers: old.Balancers}
	b := m.builder()
	var tags []tag.Tag
	for _, id := range sorted(d.ports) {
		was, is := old.Port(id), b.port(id)
		if reflect.DeepEqual(was, is) {
			continue
		}
		s.Ports = with(s.Ports, old.Ports, id, is)
		tags = append(tags, portTags(id, was, is)...)
		if where(was) != where(is) {
			tags = append(tags, tag.Tag{Kind: tag.Binding, ID: id})
		}
	}
	for _, id := range sorted(d.bridges) {
		was, is := old.Bridge(id), b.bridge(id)
		if ts := bridgeTags(id, was, is); len(ts) > 0 {
			s.Bridges = with(s.Bridges, old.Bridges, id, is)
			tags = append(tags, ts...)
		}
	}
	for _, id := range sorted(d.routers) {
		was := old.Router(id)
		is, routes := b.router(id)
		if sameRouter(was, is) && slices.Equal(m.routes[id], routes) {
			continue
		}
		if m.routes[id] = routes; is == nil {
			delete(m.routes, id)
		}
		s.Routers = with(s.Routers, old.Routers, id, is)
		tags = append(tags, tag.Tag{Kind: tag.Device, ID: id})
	}
	tags = append(tags, m.policy(s, old, d)...)
	tags = append(tags, m.balancers(s, old, d)...)
	tags = append(tags, m.hosts(s, old, d)...)
	return s, append(tags, m.absent(s, old, d)...)
}

// absent continues next with what is known not to exist. Nobody was told of it when it did not exist before, but some may have waited to know.
func (m *Mirror) absent(s, old *view.Snapshot, d dirty) (tags []tag.Tag) {
	if m.part == nil {
		return nil
	}
	list := d.things()
	slices.SortFunc(list, compareThings)
	cloned := false
	for _, t := range list {
		_, was := old.Absent[t]
		is := m.part.has(t.Kind, t.ID) && !holds(s, t)
		if was == is {
			continue
		}
		if !cloned {
			if s.Absent, cloned = maps.Clone(old.Absent), true; s.Absent == nil {
				s.Absent = make(map[view.Thing]struct{})
			}
		}
		if !is {
			delete(s.Absent, t)
			continue
		}
		s.Absent[t] = struct{}{}
		if !holds(old, t) {
			tags = append(tags, t.Tag())
		}
	}
	return tags
}

// with sets an entry (nil: none), in a copy when now is still the old map.
func with[T any](now, old map[uuid.UUID]*T, id uuid.UUID, v *T) map[uuid.UUID]*T {
	if reflect.ValueOf(now).Pointer() == reflect.ValueOf(old).Pointer() {
		if now = maps.Clone(old); now == nil {
			now = make(map[uuid.UUID]*T)
		}
	}
	if v == nil {
		delete(now, id)
	} else {
		now[id] = v
	}
	return now
}

type place struct {
	host, to uuid.UUID
	iface    string
}

func where(p *view.Port) place {
	if p == nil {
		return place{}
	}
	return place{p.Host, p.MovesTo, p.Interface}
}

func sameRouter(a, b *view.Router) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.AdminUp == b.AdminUp && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.NAT, b.NAT) &&
		a.Pre == b.Pre && a.Post == b.Post && reflect.DeepEqual(a.Rules, b.Rules) &&
		reflect.DeepEqual(a.Mirrors, b.Mirrors) && a.Health == b.Health && maps.Equal(a.VIPs, b.VIPs) && maps.Equal(a.Backends, b.Backends)
}

// portTags names what differs between two states of a port: of two that differ in floating IPs alone, those addresses.
func portTags(id uuid.UUID, was, is *view.Port) (tags []tag.Tag) {
	if was == nil || is == nil {
		return []tag.Tag{{Kind: tag.Port, ID: id}}
	}
	a, b := *was, *is
	a.Floating, a.Fixed, b.Floating, b.Fixed = nil, nil, nil, nil
	if !reflect.DeepEqual(a, b) {
		return []tag.Tag{{Kind: tag.Port, ID: id}}
	}
	order := func(a, b match.Addr) int { return slices.Compare(a[:], b[:]) }
	for _, x := range append(changedKeys(was.Floating, is.Floating, order), changedKeys(was.Fixed, is.Fixed, order)...) {
		tags = append(tags, tag.Tag{Kind: tag.Floating, ID: id, Addr: x})
	}
	return tags
}

// bridgeTags names what differs between two states of a bridge; nil: none.
func bridgeTags(id uuid.UUID, was, is *view.Bridge) []tag.Tag {
	if was == nil && is == nil {
		return nil
	}
	var tags []tag.Tag
	if was == nil || is == nil {
		tags = append(tags, tag.Tag{Kind: tag.Device, ID: id})
		if was == nil {
			was = &view.Bridge{}
		} else {
			is = &view.Bridge{}
		}
	} else if was.Name != is.Name || was.AdminUp != is.AdminUp || was.VLANAware != is.VLANAware || was.Pre != is.Pre || was.Post != is.Post ||
		!reflect.DeepEqual(was.Subnets, is.Subnets) || !reflect.DeepEqual(was.Rules, is.Rules) ||
		!reflect.DeepEqual(was.Mirrors, is.Mirrors) {
		tags = append(tags, tag.Tag{Kind: tag.Device, ID: id})
	}
	if !slices.Equal(was.Ports, is.Ports) {
		tags = append(tags, tag.Tag{Kind: tag.Flood, ID: id})
	}
	for _, mac := range changedKeys(was.MACs, is.MACs, func(a, b view.LinkMAC) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), slices.Compare(a.MAC[:], b.MAC[:]))
	}) {
		tags = append(tags, tag.Tag{Kind: tag.MACEntry, ID: id, MAC: mac.MAC, VLAN: mac.VLAN})
	}
	for _, a := range changedKeys(was.Neighbours, is.Neighbours, func(a, b view.LinkAddr) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), slices.Compare(a.Addr[:], b.Addr[:]))
	}) {
		tags = append(tags, tag.Tag{Kind: tag.Neighbour, ID: id, Addr: a.Addr, VLAN: a.VLAN})
	}
	return tags
}

// changedKeys lists, in order, what is in one map only or has another value in the other.
func changedKeys[K, V comparable](a, b map[K]V, order func(K, K) int) []K {
	var ks []K
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			ks = append(ks, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			ks = append(ks, k)
		}
	}
	slices.SortFunc(ks, order)
	return ks
}

func sorted(set map[uuid.UUID]struct{}) []uuid.UUID {
	ids := slices.Collect(maps.Keys(set))
	sortIDs(ids)
	return ids
}

// Binding is a port that belongs to an interface of this host, did so until now, or will.
type Binding struct {
	Port      uuid.UUID
	Interface string    // To is Nil: of this host
	To        uuid.UUID // the host that this one is to let have it; Nil: it stays
	From      uuid.UUID // the host that has it still: this one has to wait; Nil: nobody
}

// holds reports whether a snapshot has a thing.
func holds(s *view.Snapshot, t view.Thing) (ok bool) {
	switch t.Kind {
	case view.ThingPort:
		_, ok = s.Ports[t.ID]
	case view.ThingBridge:
		_, ok = s.Bridges[t.ID]
	case view.ThingRouter:
		_, ok = s.Routers[t.ID]
	case view.ThingChain:
		_, ok = s.Chains[t.ID]
	case view.ThingGroup:
		_, ok = s.Groups[t.ID]
	case view.ThingSecurity:
		_, ok = s.Security[t.ID]
	case view.ThingBalancer:
		_, ok = s.Balancers[t.ID]
	}
	return ok
}
