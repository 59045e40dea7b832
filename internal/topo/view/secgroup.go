package view

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// SecurityGroup is what the ports of a group may send and receive. The addresses of its ports are an AddressGroup
// with its id.
type SecurityGroup struct {
	ID              uuid.UUID
	Name            string
	Stateful        bool
	Ingress, Egress Allowed
}

// Allowed is one direction of a group. As each rule allows, their order does not matter: they are sorted by protocol, so that a
// packet meets only those that it might fit, and of these the ones first that ask least of it.
type Allowed struct {
	Rules    []Rule // by name, then id; for people, and the counters
	byProto  map[family][]Allow
	anyProto [2][]Allow // of packets whose protocol no rule names; by family, IPv4 first
}

type family struct {
	six   bool
	proto uint8
}

// Allow is one rule in the form in which packets are held against it.
type Allow struct {
	Rule   *Rule
	Ports  model.Range // destination ports; of ICMP type<<8|code. All: it does not ask
	Prefix Prefix      // of the remote end, unless Any
	Any    bool        // any remote end
	Group  uuid.UUID   // address group, or security group, of the remote end; Nil: none is asked for
}

// AllPorts is the Ports of an Allow that does not ask for any: it also fits what has none.
var AllPorts = model.Range{From: 0, To: 65535}

// NewAllowed makes the rules of one direction of a group. Each has its name, its id, and how it reads as a condition.
func NewAllowed(rules []*model.SecurityGroupRule) Allowed {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, func(a, b *model.SecurityGroupRule) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	a := Allowed{Rules: make([]Rule, len(rules)), byProto: make(map[family][]Allow)}
	for i, r := range rules {
		c := condition(r)
		a.Rules[i] = Rule{ID: r.ID, Name: r.Name, Position: i + 1, Verdict: VerdictAccept, Match: NewCondition(&c)}
		if r.Protocol != 0 {
			a.byProto[family{r.EtherType == model.IPv6, r.Protocol}] = nil
		}
	}
	for i, r := range rules {
		x := allow(r, &a.Rules[i])
		six := r.EtherType == model.IPv6
		if r.Protocol == 0 {
			a.anyProto[index(six)] = append(a.anyProto[index(six)], x)
		}
		for f := range a.byProto {
			if f.six == six && (r.Protocol == 0 || r.Protocol == f.proto) {
				a.byProto[f] = append(a.byProto[f], x)
			}
		}
	}
	for _, list := range a.byProto {
		slices.SortStableFunc(list, narrower)
	}
	for _, list := range a.anyProto {
		slices.SortStableFunc(list, narrower)
	}
	return a
}

// Of lists the rules that packets of a protocol might fit.
func (a *Allowed) Of(six bool, proto uint8) []Allow {
	if list, ok := a.byProto[family{six, proto}]; ok {
		return list
	}
	return a.anyProto[index(six)]
}

func index(six bool) int {
	if six {
		return 1
	}
	return 0
}

// narrower orders rules by how much of a packet they look at: a port is a smaller question than an address, and a subnet than
// the members of a group.
func narrower(a, b Allow) int {
	cost := func(x *Allow) (n int) {
		if x.Ports != AllPorts {
			n++
		}
		if !x.Any {
			n += 2
		}
		if x.Group != uuid.Nil {
			n += 2
		}
		return n
	}
	return cmp.Or(cmp.Compare(cost(&a), cost(&b)), cmp.Compare(a.Ports.From, b.Ports.From))
}

func allow(r *model.SecurityGroupRule, of *Rule) Allow {
	x := Allow{Rule: of, Ports: AllPorts, Any: !r.RemotePrefix.IsValid() || r.RemotePrefix.Bits() == 0, Prefix: newPrefix(r.RemotePrefix)}
	switch {
	case r.PortMin != nil && r.PortMax != nil:
		x.Ports = model.Range{From: *r.PortMin, To: *r.PortMax}
	case r.ICMPType != nil && r.ICMPCode != nil:
		at := uint16(*r.ICMPType)<<8 | uint16(*r.ICMPCode)
		x.Ports = model.Range{From: at, To: at}
	case r.ICMPType != nil:
		x.Ports = model.Range{From: uint16(*r.ICMPType) << 8, To: uint16(*r.ICMPType)<<8 | 0xff}
	}
	if r.RemoteGroupID != uuid.Nil {
		x.Group = r.RemoteGroupID
	} else {
		x.Group = r.RemoteAddressGroupID
	}
	x.Any = x.Any && x.Group == uuid.Nil
	return x
}

// condition is a rule in the words of chains, for people.
func condition(r *model.SecurityGroupRule) model.Condition {
	c := model.Condition{EthType: 0x0800, Proto: r.Protocol}
	if r.EtherType == model.IPv6 {
		c.EthType = 0x86dd
	}
	if r.PortMin != nil && r.PortMax != nil {
		c.DstPorts = &model.Range{From: *r.PortMin, To: *r.PortMax}
	}
	octet := func(p *uint8) *model.Range {
		if p == nil {
			return nil
		}
		return &model.Range{From: uint16(*p), To: uint16(*p)}
	}
	c.ICMPTypes, c.ICMPCodes = octet(r.ICMPType), octet(r.ICMPCode)
	group := r.RemoteGroupID
	if group == uuid.Nil {
		group = r.RemoteAddressGroupID
	}
	if r.Direction == model.Ingress {
		c.Src, c.SrcGroup = r.RemotePrefix, group
	} else {
		c.Dst, c.DstGroup = r.RemotePrefix, group
	}
	return c
}

// Members are the addresses of a security group's ports: fixed ones and allowed pairs. was is as for NewAddressGroup.
func Members(id uuid.UUID, name string, ports []*model.Port, was *AddressGroup) *AddressGroup {
	list := make([]netip.Prefix, 0, len(ports))
	for _, p := range ports {
		for _, a := range p.Addresses {
			list = append(list, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
		for _, a := range p.AllowedAddressPairs {
			list = append(list, a.Address)
		}
	}
	return NewAddressGroup(id, name, list, was)
}
