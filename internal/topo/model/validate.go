package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Limits.
const (
	MaxName      = 255 // bytes
	MaxInterface = 15  // bytes: the kernel's IFNAMSIZ less the final NUL
	MaxAddresses = 64  // of one port
)

// DefaultWeight is a Route's weight when it is given as 0.
const DefaultWeight = 100

func fieldErr(o Object, field, reason string) *FieldError {
	m := o.GetMeta()
	return &FieldError{Kind: o.Kind(), ID: m.ID, Name: m.Name, Field: field, Reason: reason}
}

// PortMAC is the address of a router port that was given none: locally administered
// (first byte 02), derived from the id and so the same on every host, for ever.
func PortMAC(id uuid.UUID) match.MAC {
	// The last bytes of an id of version 4 or 7 are random in full.
	return match.MAC{0x02, id[11], id[12], id[13], id[14], id[15]}
}

// Normalize fills in what has a default, as every store does.
func Normalize(o Object) {
	switch o := o.(type) {
	case *Port:
		if o.RouterID != uuid.Nil && o.MAC == (match.MAC{}) {
			o.MAC = PortMAC(o.ID)
		}
	case *Subnet:
		o.normalize()
	case *Route:
		if o.Weight == 0 {
			o.Weight = DefaultWeight
		}
	case *Rule:
		normalizeRule(o)
	case *Pool:
		o.normalize()
	case *Mirror:
		normalizeCondition(&o.Match)
		o.Direction = cmp.Or(o.Direction, MirrorBoth)
	case *SecurityGroupRule:
		if o.EtherType == "" {
			o.EtherType = IPv4
		}
	}
}

// validate checks one object, with what it refers to.
func (g *Graph) validate(c Change) error {
	o := c.New
	if err := validateMeta(o); err != nil {
		return err
	}
	switch o := o.(type) {
	case *Bridge:
		return g.validateFilters(o, filterRef{"pre_forwarding", o.PreForwardingID}, filterRef{"post_forwarding", o.PostForwardingID})
	case *Router:
		return g.validateFilters(o, filterRef{"pre_routing", o.PreRoutingID}, filterRef{"post_routing", o.PostRoutingID})
	case *AddressGroup:
		return g.validateAddressGroup(o)
	case *SecurityGroupRule:
		if old, ok := c.Old.(*SecurityGroupRule); ok && old.GroupID != o.GroupID {
			return fieldErr(o, "security_group", "cannot change: delete the rule and create another")
		}
		return g.validateSecurityGroupRule(o)
	case *Rule:
		if old, ok := c.Old.(*Rule); ok && old.ChainID != o.ChainID {
			return fieldErr(o, "chain", "cannot change: delete the rule and create another")
		}
		return g.validateRule(o)
	case *Port:
		if old, ok := c.Old.(*Port); ok {
			if old.BridgeID != o.BridgeID {
				return fieldErr(o, "bridge", "cannot change: delete the port and create another")
			}
			if old.RouterID != o.RouterID {
				return fieldErr(o, "router", "cannot change: delete the port and create another")
			}
		}
		if err := validateTunnelKey(c.Old, o); err != nil {
			return err
		}
		return g.validatePort(o)
	case *QoSPolicy:
		return validateQoSPolicy(o)
	case *Mirror:
		if old, ok := c.Old.(*Mirror); ok && old.Source() != o.Source() {
			return fieldErr(o, string(o.Source().Kind), "cannot change: delete the mirror and create another")
		}
		return g.validateMirror(o)
	case *Subnet:
		if old, ok := c.Old.(*Subnet); ok && old.BridgeID != o.BridgeID {
			return fieldErr(o, "bridge", "cannot change: delete the subnet and create another")
		}
		return g.validateSubnet(o)
	case *Route:
		return g.validateRoute(o)
	case *Host:
		return g.validateTunnels(o)
	case *Binding:
		return g.validateBinding(o)
	case *FloatingIP:
		return g.validateFloatingIP(o)
	case *LoadBalancer:
		if old, ok := c.Old.(*LoadBalancer); ok && old.RouterID != o.RouterID {
			return fieldErr(o, "router", "cannot change: delete the load balancer and create another")
		}
		if err := validateTunnelKey(c.Old, o); err != nil {
			return err
		}
		return g.validateLoadBalancer(o)
	case *Pool:
		return validatePool(o)
	case *PoolMember:
		if old, ok := c.Old.(*PoolMember); ok && old.PoolID != o.PoolID {
			return fieldErr(o, "pool", "cannot change: delete the member and create another")
		}
		return g.validatePoolMember(o)
	}
	return nil
}

func validateMeta(o Object) error {
	m := o.GetMeta()
	if m.ID == uuid.Nil {
		return fieldErr(o, "id", "is missing")
	}
	if len(m.Name) > MaxName {
		return fieldErr(o, "name", fmt.Sprintf("is longer than %d bytes", MaxName))
	}
	if !utf8.ValidString(m.Name) {
		return fieldErr(o, "name", "is not UTF-8")
	}
	for _, r := range m.Name {
		if !unicode.IsPrint(r) {
			return fieldErr(o, "name", fmt.Sprintf("%q is not printable", r))
		}
	}
	if id, err := uuid.Parse(m.Name); err == nil && id != m.ID {
		return fieldErr(o, "name", "is the form of another object's id")
	}
	return validateTenant(o)
}

// exists checks a reference that must be there.
func (g *Graph) exists(o Object, field string, k Kind, id uuid.UUID) error {
	if id == uuid.Nil {
		return fieldErr(o, field, "is missing")
	}
	if g.Get(k, id) == nil {
		return fieldErr(o, field, fmt.Sprintf("no %s %s", k, id))
	}
	return nil
}

func (g *Graph) validateRoute(r *Route) error {
	if err := g.exists(r, "router", KindRouter, r.RouterID); err != nil {
		return err
	}
	if reason := badNetwork(r.Destination); reason != "" {
		return fieldErr(r, "destination", reason)
	}
	if r.Source != (netip.Prefix{}) {
		if reason := badNetwork(r.Source); reason != "" {
			return fieldErr(r, "source", reason)
		}
		if r.Source.Addr().Is4() != r.Destination.Addr().Is4() {
			return fieldErr(r, "source", fmt.Sprintf("%s is not of the family of the destination %s", r.Source, r.Destination))
		}
	}
	if r.Weight < 0 {
		return fieldErr(r, "weight", fmt.Sprintf("%d is negative", r.Weight))
	}
	switch r.NextHop {
	case NextHopPort:
		return g.validateHop(r)
	case NextHopBlackhole, NextHopReject:
		if r.PortID != uuid.Nil {
			return fieldErr(r, "port", fmt.Sprintf("has no meaning with next hop %s", r.NextHop))
		}
		if r.Gateway != (netip.Addr{}) {
			return fieldErr(r, "gateway", fmt.Sprintf("has no meaning with next hop %s", r.NextHop))
		}
		return nil
	}
	return fieldErr(r, "next_hop", fmt.Sprintf("%q is none of %s, %s, %s", r.NextHop, NextHopPort, NextHopBlackhole, NextHopReject))
}

// validateHop checks the port and the gateway of a route that has them.
func (g *Graph) validateHop(r *Route) error {
	if err := g.exists(r, "port", KindPort, r.PortID); err != nil {
		return err
	}
	p := g.Get(KindPort, r.PortID).(*Port)
	if p.RouterID != r.RouterID {
		return fieldErr(r, "port", fmt.Sprintf("%s is not of this router", RefTo(p)))
	}
	gw := r.Gateway
	if gw == (netip.Addr{}) {
		return nil
	}
	if reason := badUnicast(gw); reason != "" {
		return fieldErr(r, "gateway", reason)
	}
	if gw.Is4() != r.Destination.Addr().Is4() {
		return fieldErr(r, "gateway", fmt.Sprintf("%s is not of the family of the destination %s", gw, r.Destination))
	}
	onLink := gw.Is6() && gw.IsLinkLocalUnicast()
	for _, a := range p.Addresses {
		if a.Addr() == gw {
			return fieldErr(r, "gateway", fmt.Sprintf("%s is the own address of %s", gw, RefTo(p)))
		}
		onLink = onLink || a.Contains(gw)
	}
	if !onLink {
		return fieldErr(r, "gateway", fmt.Sprintf("%s is in no subnet of %s", gw, RefTo(p)))
	}
	return nil
}

func (g *Graph) validateBinding(b *Binding) error {
	if err := g.exists(b, "port", KindPort, b.PortID); err != nil {
		return err
	}
	if b.ID != b.PortID {
		return fieldErr(b, "id", "must be that of the port, which has at most one binding")
	}
	if err := g.exists(b, "host", KindHost, b.HostID); err != nil {
		return err
	}
	if reason := badInterface(b.Interface); reason != "" {
		return fieldErr(b, "interface", reason)
	}
	if p := g.Get(KindPort, b.PortID).(*Port); p.PeerID != uuid.Nil {
		return fieldErr(b, "port", fmt.Sprintf("%s has a peer", RefTo(p)))
	}
	return nil
}

// checkAround checks what changes mean for objects that did not change themselves: nothing may refer to
// what is gone, and routes and bindings must still fit their port.
func (g *Graph) checkAround(changes []Change, tenant string) error {
	for _, c := range changes {
		if c.New == nil {
			if by := g.Referrers(KeyOf(c.Old)); len(by) > 0 {
				return g.known(&ReferenceError{Ref: RefTo(c.Old), By: by}, tenant)
			}
		}
		if err := g.checkFixed(c); err != nil {
			return g.blind(err, c, tenant)
		}
		if err := g.checkDefault(c); err != nil {
			return err
		}
		if c.New == nil {
			continue
		}
		if c.New.Kind() != KindPort || c.Old == nil {
			continue
		}
		for from := range g.referrersOf(KeyOf(c.New)) {
			if err := g.validate(Change{New: g.Get(from.Kind, from.ID)}); err != nil {
				return g.blind(err, c, tenant)
			}
		}
	}
	return nil
}
