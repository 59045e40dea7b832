package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// commit writes to the store as the API does; while that is down, nothing changes.
func (s *Sim) commit(what string, ops ...store.Op) bool {
	if s.store.down {
		return false
	}
	rev, err := s.store.txn(ops...)
	if err != nil {
		s.logf("refused: %s: %v", what, err)
		return false
	}
	s.logf("revision %d: %s", rev, what)
	return true
}

// one is a random object of a kind; nil: there is none.
func one[T model.Object](s *Sim, r *rand.Rand, fits func(T) bool) (x T) {
	var list []T
	for _, o := range s.store.graph.List(x.Kind()) {
		if o := o.(T); fits == nil || fits(o) {
			list = append(list, o)
		}
	}
	return pick(r, list)
}

func replace(o model.Object) store.Op { return store.Op{Verb: store.Replace, Object: o} }

// changes are what operators and tenants do.
var changes = []func(*Sim, *rand.Rand){
	changeState, changeState, changeGroupRule, changeGroupRule, changeGroupRule, changeGroups, changeFilterRule, changeFilterRule, changeFilter, changeFloating, changeMasquerade,
	changeRoute, changePlug, changeSeeds,
}

func randomChange(s *Sim, r *rand.Rand) { pick(r, changes)(s, r) }

func changeState(s *Sim, r *rand.Rand) {
	switch r.IntN(4) {
	case 0:
		x := one[*model.Bridge](s, r, nil)
		x.AdminStateUp = !x.AdminStateUp
		s.commit(fmt.Sprintf("bridge %s up: %v", x.Name, x.AdminStateUp), replace(x))
	case 1:
		x := one[*model.Router](s, r, nil)
		x.AdminStateUp = !x.AdminStateUp
		s.commit(fmt.Sprintf("router %s up: %v", x.Name, x.AdminStateUp), replace(x))
	default:
		x := one[*model.Port](s, r, nil)
		x.AdminStateUp = !x.AdminStateUp
		s.commit(fmt.Sprintf("port %s up: %v", x.Name, x.AdminStateUp), replace(x))
	}
}

func changeGroupRule(s *Sim, r *rand.Rand) {
	if x := one[*model.SecurityGroupRule](s, r, nil); x != nil && chance(r, 2) {
		s.commit("security group rule "+x.Name+" goes", store.Op{Verb: store.Delete, Object: x})
		return
	}
	g := one[*model.SecurityGroup](s, r, nil)
	x := &model.SecurityGroupRule{Meta: meta(fmt.Sprintf("%s-rule%d", g.Name, r.IntN(1000))), GroupID: g.ID, Direction: pick(r, []model.Direction{model.Ingress, model.Egress}), EtherType: model.IPv4}
	if chance(r, 2) {
		x.Protocol = pick(r, []uint8{1, 6, 17})
		if port := pick(r, servers); x.Protocol != 1 && chance(r, 2) {
			x.PortMin, x.PortMax = &port, &port
		}
	}
	switch r.IntN(3) {
	case 0:
		x.RemoteGroupID = one[*model.SecurityGroup](s, r, nil).ID
	case 1:
		x.RemotePrefix = prefix("10.%d.%d.0/24", 1+r.IntN(2), 1+r.IntN(2))
	}
	s.commit("security group rule "+x.Name, store.Op{Verb: store.Create, Object: x})
}

func changeGroups(s *Sim, r *rand.Rand) {
	x := one(s, r, func(p *model.Port) bool { return p.PortSecurity })
	if x == nil {
		return
	}
	x.SecurityGroups = []uuid.UUID{}
	for _, g := range s.store.graph.List(model.KindSecurityGroup) {
		if chance(r, 2) {
			x.SecurityGroups = append(x.SecurityGroups, g.GetMeta().ID)
		}
	}
	s.commit(fmt.Sprintf("port %s is in %d groups", x.Name, len(x.SecurityGroups)), replace(x))
}

func changeFilterRule(s *Sim, r *rand.Rand) {
	if x := one[*model.Rule](s, r, nil); x != nil && chance(r, 2) {
		s.commit("rule "+x.Name+" goes", store.Op{Verb: store.Delete, Object: x})
		return
	}
	c := one[*model.Chain](s, r, nil)
	x := &model.Rule{Meta: meta(fmt.Sprintf("%s-rule%d", c.Name, r.IntN(1000))), ChainID: c.ID, Position: 1 + r.IntN(1000), Action: pick(r, []model.RuleAction{model.RuleDrop, model.RuleDrop, model.RuleReject, model.RuleAccept})}
	if chance(r, 2) {
		x.Match.Proto = pick(r, []uint8{1, 6, 17})
	} else {
		x.Match.Src = prefix("10.%d.%d.0/24", 1+r.IntN(2), 1+r.IntN(2))
	}
	s.commit(fmt.Sprintf("rule %s: %s", x.Name, x.Action), store.Op{Verb: store.Create, Object: x})
}

func changeFilter(s *Sim, r *rand.Rand) {
	x, c := one(s, r, func(p *model.Port) bool { return p.PeerID == uuid.Nil }), one[*model.Chain](s, r, nil)
	at := pick(r, []*uuid.UUID{&x.InboundFilterID, &x.OutboundFilterID})
	if *at != uuid.Nil {
		*at = uuid.Nil
	} else {
		*at = c.ID
	}
	s.commit(fmt.Sprintf("port %s has another filter", x.Name), replace(x))
}

func changeFloating(s *Sim, r *rand.Rand) {
	if x := one[*model.FloatingIP](s, r, nil); x != nil && chance(r, 2) {
		s.commit("floating IP "+x.Name+" goes", store.Op{Verb: store.Delete, Object: x})
		return
	}
	v := pick(r, s.vms)
	a := v.addr.Netip().As4()
	if a[0] != 10 {
		return
	}
	x := &model.FloatingIP{Meta: meta(v.name + "-fip"), PortID: id(fmt.Sprintf("t%d-ext", a[1])), FixedAddress: v.addr.Netip(),
		Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + 20*int(a[1]) + r.IntN(20))})}
	s.commit(fmt.Sprintf("floating IP %s of %s", x.Address, v.name), store.Op{Verb: store.Create, Object: x})
}

func changeMasquerade(s *Sim, r *rand.Rand) {
	x := one(s, r, func(p *model.Port) bool {
		return p.RouterID != uuid.Nil && p.Addresses[0].Addr().As4()[0] == 203
	})
	x.Masquerade = !x.Masquerade
	s.commit(fmt.Sprintf("port %s masquerades: %v", x.Name, x.Masquerade), replace(x))
}

func changeRoute(s *Sim, r *rand.Rand) {
	if x := one[*model.Route](s, r, nil); x != nil && chance(r, 2) {
		s.commit("route "+x.Name+" goes", store.Op{Verb: store.Delete, Object: x})
		return
	}
	router, v := one[*model.Router](s, r, nil), pick(r, s.vms)
	x := &model.Route{Meta: meta(fmt.Sprintf("%s-route%d", router.Name, r.IntN(1000))), RouterID: router.ID, Destination: single(v.addr.Netip()), NextHop: pick(r, []model.NextHop{model.NextHopBlackhole, model.NextHopReject})}
	s.commit(fmt.Sprintf("route %s to %s: %s", x.Name, x.Destination, x.NextHop), store.Op{Verb: store.Create, Object: x})
}

// changeSeeds has a port say what is behind it, or say so no more.
func changeSeeds(s *Sim, r *rand.Rand) {
	v := pick(r, s.vms)
	x, ok := s.store.graph.Get(model.KindPort, v.port).(*model.Port)
	if !ok || x.PortSecurity {
		return
	}
	x = model.Clone(x).(*model.Port)
	if len(x.Addresses) > 0 {
		x.Addresses, x.MAC = nil, [6]byte{}
	} else {
		x.Addresses, x.MAC = []netip.Prefix{single(v.addr.Netip())}, v.mac
	}
	s.commit(fmt.Sprintf("port %s names its addresses: %v", x.Name, len(x.Addresses) > 0), replace(x))
}

// changePlug takes a VM's interface away, or brings it back.
func changePlug(s *Sim, r *rand.Rand) {
	v := pick(r, s.vms)
	if v.host != nil {
		s.logf("%s is unplugged", v.name)
		v.place(nil)
		return
	}
	s.settle(v)
}

// settle plugs a VM in where the network says that it is.
func (s *Sim) settle(v *vm) {
	b, ok := s.store.graph.Get(model.KindBinding, v.port).(*model.Binding)
	if !ok {
		return
	}
	if h := s.hostOf(b.HostID); v.host != h {
		s.logf("%s is plugged in at %s", v.name, h.name)
		v.place(h)
		v.announce()
	}
}

// randomMove has a VM go to another host: its port is bound there, and its interface comes there, one before the other.
func randomMove(s *Sim, r *rand.Rand) {
	v, h := pick(r, s.vms), pick(r, s.hosts)
	b, ok := s.store.graph.Get(model.KindBinding, v.port).(*model.Binding)
	if !ok || s.store.down {
		return
	}
	b = model.Clone(b).(*model.Binding)
	b.HostID = h.id
	bind := func() { s.commit(fmt.Sprintf("port %s is bound at %s", v.name, h.name), replace(b)) }
	plug := func() { s.settle(v) }
	if chance(r, 2) {
		s.logf("%s is unplugged: it moves", v.name)
		v.place(nil)
	}
	bind()
	s.after(between(r, 0, 400e6), plug)
}
