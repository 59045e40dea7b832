package model

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// uniqueKey is something that at most one object may have. field is the
// name the error gives it; unused fields are zero.
type uniqueKey struct {
	field string
	kind  Kind
	scope uuid.UUID // bridge, host, chain or security group
	text  string
	mac   match.MAC
	addr  netip.Addr
	n     int

	tenant string
}

// uniqueKeys lists what o claims for itself.
func (g *Graph) uniqueKeys(o Object) []uniqueKey {
	if x, ok := o.(*SecurityGroup); g.replica && (!ok || x.Name != DefaultGroup) {
		return nil
	}
	var keys []uniqueKey
	if n := o.GetMeta().Name; n != "" {
		keys = append(keys, uniqueKey{field: "name", kind: o.Kind(), tenant: o.GetMeta().Tenant, text: n})
	}
	switch o := o.(type) {
	case *Host:
		for _, t := range o.Tunnels {
			keys = append(keys, uniqueKey{field: "tunnels", kind: KindHost, scope: t.ZoneID, addr: t.Address})
		}
	case *Port:
		if o.TunnelKey != 0 {
			keys = append(keys, tunnelKey(o.TunnelKey))
		}
		link, vlan := g.linkOf(o)
		if link == uuid.Nil {
			break
		}
		if o.MAC != (match.MAC{}) {
			keys = append(keys, uniqueKey{field: "mac", kind: KindPort, scope: link, mac: o.MAC, n: vlan})
		}
		for _, a := range o.Addresses {
			keys = append(keys, uniqueKey{field: "addresses", kind: KindPort, scope: link, addr: a.Addr(), n: vlan})
		}
	case *FloatingIP: // one port knows each address once, in either role
		keys = append(keys,
			uniqueKey{field: "address", kind: KindFloatingIP, scope: o.PortID, addr: o.Address},
			uniqueKey{field: "fixed_address", kind: KindFloatingIP, scope: o.PortID, addr: o.FixedAddress})
	case *LoadBalancer:
		keys = append(keys, uniqueKey{field: "address", kind: KindLoadBalancer, scope: o.RouterID, addr: o.Address})
		if o.TunnelKey != 0 {
			keys = append(keys, tunnelKey(o.TunnelKey))
		}
	case *PoolMember:
		keys = append(keys, uniqueKey{field: "address", kind: KindPoolMember, scope: o.PoolID, addr: o.Address, n: int(o.Port)})
	case *Binding:
		keys = append(keys, uniqueKey{field: "interface", kind: KindBinding, scope: o.HostID, text: o.Interface})
	case *SecurityGroupRule:
		keys = append(keys, uniqueKey{field: "rule", kind: KindSecurityGroupRule, scope: o.GroupID, text: o.content()})
	case *Rule:
		keys = append(keys, uniqueKey{field: "position", kind: KindRule, scope: o.ChainID, n: o.Position})
	}
	return keys
}

// linkOf is the bridge whose segment p's own addresses are on: a bridge port's bridge, or
// the one that a router port is peered with. vlan is that of the port there.
func (g *Graph) linkOf(p *Port) (bridge uuid.UUID, vlan int) {
	if p.BridgeID != uuid.Nil {
		return p.BridgeID, int(p.VLAN)
	}
	if peer, ok := g.Get(KindPort, p.PeerID).(*Port); ok {
		return peer.BridgeID, int(peer.VLAN)
	}
	return uuid.Nil, 0
}

// apply moves the graph to the new state and checks it.
func (s *Staged) apply() error {
	// All old claims go before any new one comes, so that names and addresses
	// can change hands within a transaction. Claims are computed while both ends of a link are as they were.
	renumbered := s.renumbered()
	for _, p := range renumbered {
		s.unindex(p)
	}
	for _, c := range s.Changes {
		if c.Old != nil {
			s.unindex(c.Old)
		}
	}
	for _, c := range s.Changes {
		if c.New != nil {
			s.set(KeyOf(c.New), c.New)
		} else {
			s.set(KeyOf(c.Old), nil)
		}
	}
	for _, c := range s.Changes {
		if c.New == nil {
			continue
		}
		if err := s.validate(c); err != nil {
			return err
		}
		if err := s.index(c.New); err != nil {
			return err
		}
	}
	for _, p := range renumbered {
		if err := s.index(p); err != nil {
			return err
		}
	}
	return s.graph.checkAround(s.Changes, s.tenant)
}

// renumbered are the ports that do not change themselves, but whose claims do: the VLAN at the other end is another.
func (s *Staged) renumbered() (ports []*Port) {
	changes := make(map[uuid.UUID]bool, len(s.Changes))
	for _, c := range s.Changes {
		if p, ok := c.Old.(*Port); ok {
			changes[p.ID] = true
		}
	}
	for _, c := range s.Changes {
		was, ok := c.Old.(*Port)
		is, ok2 := c.New.(*Port)
		if !ok || !ok2 || was.VLAN == is.VLAN || was.PeerID != is.PeerID || changes[is.PeerID] {
			continue
		}
		if peer, ok := s.graph.Get(KindPort, is.PeerID).(*Port); ok {
			ports = append(ports, peer)
		}
	}
	return ports
}

func (s *Staged) set(k Key, o Object) {
	m := s.graph.objects[k.Kind]
	if old := m[k.ID]; old != nil {
		s.undo = append(s.undo, func() { m[k.ID] = old })
	} else {
		s.undo = append(s.undo, func() { delete(m, k.ID) })
	}
	if o == nil {
		delete(m, k.ID)
	} else {
		m[k.ID] = o
	}
}

func (s *Staged) unindex(o Object) {
	g, id := s.graph, o.GetMeta().ID
	for _, u := range g.uniqueKeys(o) {
		owner, waiting := g.unique[u], g.waiting[u]
		s.undo = append(s.undo, func() { g.setClaim(u, owner, waiting) })
		if owner != id {
			g.setClaim(u, owner, without(waiting, id))
		} else if len(waiting) > 0 {
			g.setClaim(u, waiting[0], waiting[1:])
		} else {
			g.setClaim(u, uuid.Nil, nil)
		}
	}
	from := KeyOf(o)
	for _, to := range Refs(o) {
		g.unlink(from, to)
		s.undo = append(s.undo, func() { g.link(from, to) })
	}
}

// setClaim says who has u, and who else would.
func (g *Graph) setClaim(u uniqueKey, owner uuid.UUID, waiting []uuid.UUID) {
	if owner == uuid.Nil {
		delete(g.unique, u)
	} else {
		g.unique[u] = owner
	}
	if len(waiting) == 0 {
		delete(g.waiting, u)
	} else {
		g.waiting[u] = waiting
	}
}

// without is a copy that lacks id.
func without(ids []uuid.UUID, id uuid.UUID) []uuid.UUID {
	return slices.DeleteFunc(slices.Clone(ids), func(x uuid.UUID) bool { return x == id })
}

// index adds o to the indexes. What is taken by another object is an error, and stays the other's until that lets go of it.
func (s *Staged) index(o Object) error {
	g, id := s.graph, o.GetMeta().ID
	var err error
	for _, u := range g.uniqueKeys(o) {
		if owner, taken := g.unique[u]; taken && owner != id {
			err = cmp.Or(err, g.taken(o, u, owner))
			waiting := g.waiting[u]
			s.undo = append(s.undo, func() { g.setClaim(u, owner, waiting) })
			g.setClaim(u, owner, append(without(waiting, id), id))
		} else if !taken {
			g.unique[u] = id
			s.undo = append(s.undo, func() { delete(g.unique, u) })
		}
	}
	from := KeyOf(o)
	for _, to := range Refs(o) {
		g.link(from, to)
		s.undo = append(s.undo, func() { g.unlink(from, to) })
	}
	return err
}

func (g *Graph) taken(o Object, u uniqueKey, owner uuid.UUID) error {
	by := Ref{Kind: u.kind, ID: owner}.String()
	if x := g.Get(u.kind, owner); x != nil {
		by = RefTo(x).String()
		if t := o.GetMeta().Tenant; t != "" && !Visible(x, t) {
			by = "another tenant"
		}
	}
	switch u.field {
	case "name":
		return &ObjectError{Ref: RefTo(o), Err: ErrExists, Detail: fmt.Sprintf("%s %s has this name", u.kind, owner)}
	case "mac":
		return fieldErr(o, "mac", fmt.Sprintf("%s is already that of %s on the same bridge", u.mac, by))
	case "addresses":
		p := o.(*Port)
		i := slices.IndexFunc(p.Addresses, func(a netip.Prefix) bool { return a.Addr() == u.addr })
		return fieldErr(o, fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("%s is already that of %s on the same bridge", u.addr, by))
	}
	switch {
	case u.field == "tunnel_key":
		return fieldErr(o, u.field, fmt.Sprintf("%d is already that of %s", u.n, by))
	case u.kind == KindHost:
		return fieldErr(o, u.field, fmt.Sprintf("%s is already that of %s in the same zone", u.addr, by))
	}
	switch u.kind {
	case KindLoadBalancer:
		return fieldErr(o, u.field, fmt.Sprintf("%s is already that of %s at the same router", u.addr, by))
	case KindPoolMember:
		return fieldErr(o, u.field, fmt.Sprintf("%s port %d is already that of %s in the same pool", u.addr, u.n, by))
	}
	if u.kind == KindFloatingIP {
		return fieldErr(o, u.field, fmt.Sprintf("%s is already that of %s at the same port", u.addr, by))
	}
	if u.kind == KindSecurityGroupRule {
		return fieldErr(o, "security_group", fmt.Sprintf("%s of the same group says the same", by))
	}
	if u.field == "position" {
		return fieldErr(o, u.field, fmt.Sprintf("%d is already that of %s in the same chain", u.n, by))
	}
	return fieldErr(o, u.field, fmt.Sprintf("%s is already taken on this host by the %s", u.text, by))
}

func (g *Graph) link(from, to Key) {
	s := g.referrers[to]
	s.add(from)
	g.referrers[to] = s
}

func (g *Graph) unlink(from, to Key) {
	s := g.referrers[to]
	if s.remove(from); s.empty() {
		delete(g.referrers, to)
		return
	}
	g.referrers[to] = s
}

func (g *Graph) referrersOf(k Key) iter.Seq[Key] {
	s := g.referrers[k]
	return s.all()
}

// Referrers lists what refers to k and keeps it from being deleted, ordered by kind, name and id.
func (g *Graph) Referrers(k Key) []Ref {
	var by []Ref
	for from := range g.referrersOf(k) {
		if o := g.Get(from.Kind, from.ID); o != nil {
			by = append(by, RefTo(o))
		}
	}
	slices.SortFunc(by, func(a, b Ref) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	return by
}

// ReferrersOf goes through the objects of one kind that refer to k, in no order. The caller must not change them.
func (g *Graph) ReferrersOf(k Key, kind Kind) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for from := range g.referrersOf(k) {
			if from.Kind != kind {
				continue
			}
			if o := g.Get(kind, from.ID); o != nil && !yield(o) {
				return
			}
		}
	}
}
