package model

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
)

// Limits of a Subnet. What it says must fit into one message.
const (
	MaxDNSServers   = 8
	MaxHostRoutes   = 32
	MaxExtraOptions = 32
	MinLeaseTime    = 10 // seconds: a client renews after half of it
	minMTU4         = 68 // RFC 791
	minMTU6         = 1280
	maxMTU          = 65535
)

func (g *Graph) validateSubnet(s *Subnet) error {
	if err := g.exists(s, "bridge", KindBridge, s.BridgeID); err != nil {
		return err
	}
	if s.VLAN > 4094 {
		return fieldErr(s, "vlan", fmt.Sprintf("%d is not within 1 and 4094", s.VLAN))
	}
	if reason := badSubnet(s.CIDR); reason != "" {
		return fieldErr(s, "cidr", reason)
	}
	for o := range g.ReferrersOf(Key{KindBridge, s.BridgeID}, KindSubnet) {
		if other := o.(*Subnet); other.ID != s.ID && other.VLAN == s.VLAN && other.CIDR.Overlaps(s.CIDR) {
			return fieldErr(s, "cidr", fmt.Sprintf("%s overlaps %s of %s on the same bridge and VLAN", s.CIDR, other.CIDR, RefTo(other)))
		}
	}
	if s.Gateway != (netip.Addr{}) {
		if reason := s.badHost(s.Gateway, true); reason != "" {
			return fieldErr(s, "gateway", reason)
		}
	}
	for _, check := range []func() error{s.validateNumbers, s.validateNames, s.validateRoutes, s.validateOptions, s.validateIPv6} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func badSubnet(p netip.Prefix) string {
	if reason := badNetwork(p); reason != "" {
		return reason
	}
	a := p.Addr()
	switch {
	case a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() && a.Is6():
		return fmt.Sprintf("%s is no range that hosts may have", p)
	case p.Bits() == 0 || p.IsSingleIP():
		return fmt.Sprintf("%s: a subnet of length %d", p, p.Bits())
	}
	return ""
}

// badHost says why a cannot be a host on the subnet. An IPv6 router may also go by a link-local address.
func (s *Subnet) badHost(a netip.Addr, router bool) string {
	if reason := badUnicast(a); reason != "" {
		return reason
	}
	switch {
	case router && a.Is6() && s.CIDR.Addr().Is6() && a.IsLinkLocalUnicast():
		return ""
	case !s.CIDR.Contains(a):
		return fmt.Sprintf("%s is outside %s", a, s.CIDR)
	case a.Is4() && s.CIDR.Bits() < 31 && a == s.CIDR.Addr():
		return fmt.Sprintf("%s is the address of the subnet itself", a)
	case a.Is4() && s.CIDR.Bits() < 31 && a == lastAddr(s.CIDR):
		return fmt.Sprintf("%s is the broadcast address of the subnet", a)
	}
	return ""
}

func (s *Subnet) validateNumbers() error {
	least := minMTU4
	if s.CIDR.Addr().Is6() {
		least = minMTU6
	}
	if s.MTU < least || s.MTU > maxMTU {
		return fieldErr(s, "mtu", fmt.Sprintf("%d is not between %d and %d", s.MTU, least, maxMTU))
	}
	if s.LeaseTime < MinLeaseTime || s.LeaseTime > math.MaxInt32 {
		return fieldErr(s, "lease_time", fmt.Sprintf("%d is not between %d and %d seconds", s.LeaseTime, MinLeaseTime, math.MaxInt32))
	}
	return nil
}

func (s *Subnet) validateNames() error {
	if len(s.DNSServers) > MaxDNSServers {
		return fieldErr(s, "dns_servers", fmt.Sprintf("%d are more than %d", len(s.DNSServers), MaxDNSServers))
	}
	for i, a := range s.DNSServers {
		reason := badUnicast(a)
		if reason == "" && a.Is4() != s.CIDR.Addr().Is4() {
			reason = fmt.Sprintf("%s is not of the family of %s", a, s.CIDR)
		}
		if reason != "" {
			return fieldErr(s, fmt.Sprintf("dns_servers[%d]", i), reason)
		}
	}
	if s.Domain != "" {
		if _, err := dhcp.AppendDomain(nil, s.Domain); err != nil {
			return fieldErr(s, "domain", err.Error())
		}
	}
	return nil
}

func (s *Subnet) validateRoutes() error {
	if len(s.HostRoutes) > MaxHostRoutes {
		return fieldErr(s, "host_routes", fmt.Sprintf("%d are more than %d", len(s.HostRoutes), MaxHostRoutes))
	}
	if len(s.HostRoutes) > 0 && s.CIDR.Addr().Is6() {
		return fieldErr(s, "host_routes", "DHCPv6 has no option for routes")
	}
	for i, r := range s.HostRoutes {
		at := fmt.Sprintf("host_routes[%d]", i)
		reason := badNetwork(r.Destination)
		if reason == "" && r.Destination.Addr().Is4() != s.CIDR.Addr().Is4() {
			reason = fmt.Sprintf("%s is not of the family of %s", r.Destination, s.CIDR)
		}
		if reason != "" {
			return fieldErr(s, at+".destination", reason)
		}
		if reason := s.badHost(r.NextHop, true); reason != "" {
			return fieldErr(s, at+".next_hop", reason)
		}
	}
	return nil
}

func (s *Subnet) validateOptions() error {
	if len(s.ExtraOptions) > MaxExtraOptions {
		return fieldErr(s, "extra_options", fmt.Sprintf("%d are more than %d", len(s.ExtraOptions), MaxExtraOptions))
	}
	seen := make(map[uint16]string, len(s.ExtraOptions))
	for i, x := range s.ExtraOptions {
		at := "extra_options." + x.Name
		if i > 0 && s.ExtraOptions[i-1].Name >= x.Name {
			return fieldErr(s, at, "is there twice or out of order")
		}
		o, err := dhcp.ParseOption(s.CIDR.Addr().Is6(), x.Name, x.Value)
		if err != nil {
			return fieldErr(s, at, err.Error())
		}
		if first, ok := seen[o.Code]; ok {
			return fieldErr(s, at, fmt.Sprintf("is option %d, as is %s", o.Code, first))
		}
		seen[o.Code] = x.Name
	}
	return nil
}

func (s *Subnet) validateIPv6() error {
	for _, f := range []struct {
		field string
		mode  IPv6Mode
	}{{"ipv6_ra_mode", s.IPv6RAMode}, {"ipv6_address_mode", s.IPv6AddressMode}} {
		switch {
		case f.mode == IPv6None:
			continue
		case f.mode != IPv6SLAAC && f.mode != IPv6Stateful && f.mode != IPv6Stateless:
			return fieldErr(s, f.field, fmt.Sprintf("%q is none of %s, %s, %s", f.mode, IPv6SLAAC, IPv6Stateful, IPv6Stateless))
		case s.CIDR.Addr().Is4():
			return fieldErr(s, f.field, "has no meaning on an IPv4 subnet")
		case !s.EnableDHCP:
			return fieldErr(s, f.field, "needs enable_dhcp")
		case f.mode != IPv6Stateful && s.CIDR.Bits() != 64:
			return fieldErr(s, f.field, fmt.Sprintf("%s needs a subnet of length 64, not %d", f.mode, s.CIDR.Bits()))
		}
	}
	if s.IPv6RAMode != IPv6None && s.IPv6AddressMode != IPv6None && s.IPv6RAMode != s.IPv6AddressMode {
		return fieldErr(s, "ipv6_address_mode", fmt.Sprintf("%s contradicts ipv6_ra_mode %s", s.IPv6AddressMode, s.IPv6RAMode))
	}
	if s.IPv6RAMode != IPv6None && !s.Gateway.IsValid() {
		return fieldErr(s, "ipv6_ra_mode", "needs gateway: the router that advertises")
	}
	return nil
}

// checkFixed checks, after a change of a port or a subnet, that the fixed addresses of a bridge's ports are on its subnets.
// A bridge without a subnet of a family says nothing about that family.
func (g *Graph) checkFixed(c Change) error {
	switch o := cmp.Or(c.New, c.Old).(type) {
	case *Port:
		if p, ok := c.New.(*Port); ok && p.BridgeID != uuid.Nil {
			return g.checkFixedOf(p)
		}
	case *Subnet:
		if s, ok := c.New.(*Subnet); ok && c.Old != nil && s.CIDR == c.Old.(*Subnet).CIDR {
			return nil
		}
		for p := range g.ReferrersOf(Key{KindBridge, o.BridgeID}, KindPort) {
			if err := g.checkFixedOf(p.(*Port)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Graph) checkFixedOf(p *Port) error {
	for i, x := range p.Addresses {
		a := x.Addr()
		if a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		reason := ""
		for o := range g.ReferrersOf(Key{KindBridge, p.BridgeID}, KindSubnet) {
			s := o.(*Subnet)
			if s.CIDR.Contains(a) {
				reason = s.badHost(a, false)
				break
			}
			if s.CIDR.Addr().Is4() == a.Is4() {
				reason = fmt.Sprintf("%s is outside the bridge's subnets", a)
			}
		}
		if reason != "" {
			return fieldErr(p, fmt.Sprintf("addresses[%d]", i), reason)
		}
	}
	return nil
}
