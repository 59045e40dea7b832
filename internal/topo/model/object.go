package model

import (
	"slices"

	"github.com/google/uuid"
)

// Key identifies an object.
type Key struct {
	Kind Kind
	ID   uuid.UUID
}

// KeyOf is the key of o.
func KeyOf(o Object) Key { return Key{o.Kind(), o.GetMeta().ID} }

// New makes an empty object; nil when the kind is not known.
func New(k Kind) Object {
	switch k {
	case KindBridge:
		return &Bridge{}
	case KindRouter:
		return &Router{}
	case KindPort:
		return &Port{}
	case KindRoute:
		return &Route{}
	case KindZone:
		return &TunnelZone{}
	case KindHost:
		return &Host{}
	case KindBinding:
		return &Binding{}
	case KindFloatingIP:
		return &FloatingIP{}
	case KindChain:
		return &Chain{}
	case KindRule:
		return &Rule{}
	case KindPortGroup:
		return &PortGroup{}
	case KindAddressGroup:
		return &AddressGroup{}
	case KindQoSPolicy:
		return &QoSPolicy{}
	case KindMirror:
		return &Mirror{}
	case KindSecurityGroup:
		return &SecurityGroup{}
	case KindSecurityGroupRule:
		return &SecurityGroupRule{}
	case KindSubnet:
		return &Subnet{}
	case KindLoadBalancer:
		return &LoadBalancer{}
	case KindPool:
		return &Pool{}
	case KindPoolMember:
		return &PoolMember{}
	}
	return nil
}

// Clone copies o so that nothing is shared.
func Clone(o Object) Object {
	c := New(o.Kind())
	Assign(c, o)
	return c
}

// Assign overwrites dst with a copy of src, which must be of the same kind.
func Assign(dst, src Object) {
	switch s := src.(type) {
	case *Bridge:
		*dst.(*Bridge) = *s
	case *Router:
		*dst.(*Router) = *s
	case *Port:
		c := *s
		c.Addresses = slices.Clone(s.Addresses)
		c.PortGroups = slices.Clone(s.PortGroups)
		c.AllowedAddressPairs = slices.Clone(s.AllowedAddressPairs)
		c.SecurityGroups = slices.Clone(s.SecurityGroups)
		*dst.(*Port) = c
	case *Route:
		*dst.(*Route) = *s
	case *TunnelZone:
		*dst.(*TunnelZone) = *s
	case *Host:
		c := *s
		c.Tunnels = slices.Clone(s.Tunnels)
		*dst.(*Host) = c
	case *Binding:
		*dst.(*Binding) = *s
	case *FloatingIP:
		*dst.(*FloatingIP) = *s
	case *Chain:
		*dst.(*Chain) = *s
	case *Rule:
		*dst.(*Rule) = cloneRule(s)
	case *PortGroup:
		*dst.(*PortGroup) = *s
	case *AddressGroup:
		c := *s
		c.Addresses = slices.Clone(s.Addresses)
		*dst.(*AddressGroup) = c
	case *QoSPolicy:
		c := *s
		c.DSCP = clonePtr(s.DSCP)
		*dst.(*QoSPolicy) = c
	case *Mirror:
		c := *s
		c.Match = cloneCondition(&s.Match)
		*dst.(*Mirror) = c
	case *SecurityGroup:
		*dst.(*SecurityGroup) = *s
	case *SecurityGroupRule:
		*dst.(*SecurityGroupRule) = s.clone()
	case *Subnet:
		*dst.(*Subnet) = s.clone()
	case *LoadBalancer:
		c := *s
		c.Listeners = slices.Clone(s.Listeners)
		*dst.(*LoadBalancer) = c
	case *Pool:
		*dst.(*Pool) = s.clone()
	case *PoolMember:
		*dst.(*PoolMember) = *s
	}
}

// Refs lists what o refers to and what therefore may not be deleted before it. A
// port's peer is not among them: deleting one end unplugs the other.
func Refs(o Object) []Key {
	var r []Key
	add := func(k Kind, id uuid.UUID) {
		if id != uuid.Nil {
			r = append(r, Key{k, id})
		}
	}
	switch o := o.(type) {
	case *Bridge:
		add(KindChain, o.PreForwardingID)
		add(KindChain, o.PostForwardingID)
	case *Router:
		add(KindChain, o.PreRoutingID)
		add(KindChain, o.PostRoutingID)
	case *Port:
		add(KindBridge, o.BridgeID)
		add(KindRouter, o.RouterID)
		add(KindChain, o.InboundFilterID)
		add(KindChain, o.OutboundFilterID)
		add(KindQoSPolicy, o.QoSPolicyID)
		for _, id := range o.PortGroups {
			add(KindPortGroup, id)
		}
		for _, id := range o.SecurityGroups {
			add(KindSecurityGroup, id)
		}
	case *SecurityGroupRule:
		add(KindSecurityGroup, o.GroupID)
		add(KindSecurityGroup, o.RemoteGroupID)
		add(KindAddressGroup, o.RemoteAddressGroupID)
	case *Subnet:
		add(KindBridge, o.BridgeID)
	case *Rule:
		add(KindChain, o.ChainID)
		add(KindChain, o.JumpID)
		add(KindPort, o.Redirect.PortID)
		matchRefs(&o.Match, add)
	case *Mirror:
		source := o.Source()
		add(source.Kind, source.ID)
		add(KindPort, o.ToPortID)
		matchRefs(&o.Match, add)
	case *Route:
		add(KindRouter, o.RouterID)
		add(KindPort, o.PortID)
	case *Host:
		for _, t := range o.Tunnels {
			add(KindZone, t.ZoneID)
		}
	case *Binding:
		add(KindPort, o.PortID)
		add(KindHost, o.HostID)
		add(KindHost, o.FromID)
	case *FloatingIP:
		add(KindPort, o.PortID)
	case *LoadBalancer:
		add(KindRouter, o.RouterID)
		for _, l := range o.Listeners {
			add(KindPool, l.PoolID)
		}
	case *PoolMember:
		add(KindPool, o.PoolID)
	}
	return r
}
