package model

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func subnet4(f func(*Subnet)) *Subnet {
	s := &Subnet{Meta: Meta{ID: id(41), Name: "n4"}, BridgeID: br1, CIDR: pfx("10.0.0.0/24")[0], Gateway: netip.MustParseAddr("10.0.0.1"), EnableDHCP: true}
	if f != nil {
		f(s)
	}
	return s
}

func subnet6(f func(*Subnet)) *Subnet {
	s := &Subnet{Meta: Meta{ID: id(42), Name: "n6"}, BridgeID: br1, CIDR: pfx("fd00::/64")[0], Gateway: netip.MustParseAddr("fd00::1"), EnableDHCP: true,
		IPv6RAMode: IPv6Stateful, IPv6AddressMode: IPv6Stateful}
	if f != nil {
		f(s)
	}
	return s
}

func TestSubnetDefaults(t *testing.T) {
	g := sampleGraph(t)
	s, err := g.Stage(create(subnet4(nil), subnet6(nil))...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	if n := g.Get(KindSubnet, id(41)).(*Subnet); n.MTU != DefaultMTU || n.LeaseTime != DefaultLeaseTime {
		t.Errorf("%+v", n)
	}
}

func TestSubnetRefusals(t *testing.T) {
	addrs := func(ss ...string) (as []netip.Addr) {
		for _, s := range ss {
			as = append(as, netip.MustParseAddr(s))
		}
		return as
	}
	options := func(pairs ...string) func(*Subnet) {
		return func(s *Subnet) {
			for i := 0; i < len(pairs); i += 2 {
				s.ExtraOptions = append(s.ExtraOptions, ExtraOption{pairs[i], pairs[i+1]})
			}
		}
	}
	v4 := func(f func(*Subnet)) []Op { return create(subnet4(f)) }
	v6 := func(f func(*Subnet)) []Op { return create(subnet6(f)) }
	for _, c := range []struct {
		ops  []Op
		want string // of the error's text
	}{
		{v4(func(s *Subnet) { s.BridgeID = id(99) }), "bridge: no bridge"},
		{v4(func(s *Subnet) { s.CIDR = netip.Prefix{} }), "cidr: is not a prefix"},
		{v4(func(s *Subnet) { s.CIDR = pfx("10.0.0.1/24")[0] }), "cidr: 10.0.0.1/24 has bits beyond its length"},
		{v4(func(s *Subnet) { s.CIDR = pfx("224.0.0.0/24")[0] }), "cidr: 224.0.0.0/24 is no range that hosts may have"},
		{v4(func(s *Subnet) { s.CIDR = pfx("10.0.0.0/32")[0] }), "cidr: 10.0.0.0/32: a subnet of length 32"},
		{v4(func(s *Subnet) { s.Gateway = addrs("10.0.1.1")[0] }), "gateway: 10.0.1.1 is outside 10.0.0.0/24"},
		{v4(func(s *Subnet) { s.Gateway = addrs("10.0.0.0")[0] }), "gateway: 10.0.0.0 is the address of the subnet itself"},
		{v4(func(s *Subnet) { s.Gateway = addrs("10.0.0.255")[0] }), "gateway: 10.0.0.255 is the broadcast address"},
		{v4(func(s *Subnet) { s.Gateway = addrs("fe80::1")[0] }), "gateway: fe80::1 is outside"},
		{v4(func(s *Subnet) { s.DNSServers = addrs("9.9.9.9", "2620:fe::9") }), "dns_servers[1]: 2620:fe::9 is not of the family"},
		{v4(func(s *Subnet) { s.DNSServers = make([]netip.Addr, 9) }), "dns_servers: 9 are more than 8"},
		{v4(func(s *Subnet) { s.Domain = "a b" }), "domain: \"a b\" is not a domain name"},
		{v4(func(s *Subnet) { s.MTU = 67 }), "mtu: 67 is not between 68 and 65535"},
		{v6(func(s *Subnet) { s.MTU = 1279 }), "mtu: 1279 is not between 1280"},
		{v4(func(s *Subnet) { s.LeaseTime = -1 }), "lease_time: -1 is not between"},
		{v4(func(s *Subnet) { s.HostRoutes = []HostRoute{{pfx("10.9.0.1/16")[0], addrs("10.0.0.2")[0]}} }), "host_routes[0].destination: 10.9.0.1/16 has bits"},
		{v4(func(s *Subnet) { s.HostRoutes = []HostRoute{{pfx("fd09::/16")[0], addrs("10.0.0.2")[0]}} }), "host_routes[0].destination: fd09::/16"},
		{v4(func(s *Subnet) { s.HostRoutes = []HostRoute{{pfx("10.9.0.0/16")[0], addrs("10.1.0.2")[0]}} }), "host_routes[0].next_hop: 10.1.0.2 is outside"},
		{v6(func(s *Subnet) { s.HostRoutes = []HostRoute{{pfx("fd09::/16")[0], addrs("fd00::2")[0]}} }), "host_routes: DHCPv6 has no option"},
		{v4(options("ntp-server", "10.0.0.300")), "extra_options.ntp-server: wants an address"},
		{v4(options("frobnicate", "1")), "extra_options.frobnicate: is not known"},
		{v4(options("mtu", "1400")), "extra_options.mtu: is the subnet's own: write mtu"},
		{v4(options("42", "10.0.0.3", "ntp-server", "10.0.0.3")), "extra_options.ntp-server: is option 42, as is 42"},
		{v4(options("wpad", "x", "wpad", "y")), "extra_options.wpad: is there twice"},
		{v4(func(s *Subnet) { s.IPv6RAMode = IPv6SLAAC }), "ipv6_ra_mode: has no meaning on an IPv4 subnet"},
		{v6(func(s *Subnet) { s.IPv6RAMode = "magic" }), "ipv6_ra_mode: \"magic\" is none of"},
		{v6(func(s *Subnet) { s.EnableDHCP = false }), "ipv6_ra_mode: needs enable_dhcp"},
		{v6(func(s *Subnet) { s.IPv6AddressMode = IPv6Stateless }), "ipv6_address_mode: dhcpv6-stateless contradicts ipv6_ra_mode"},
		{v6(func(s *Subnet) { s.IPv6RAMode, s.IPv6AddressMode, s.CIDR = IPv6SLAAC, IPv6SLAAC, pfx("fd00::/60")[0] }), "slaac needs a subnet of length 64"},
		{v6(func(s *Subnet) { s.Gateway = netip.Addr{} }), "ipv6_ra_mode: needs gateway"},
		{create(subnet4(nil), &Subnet{Meta: Meta{ID: id(43)}, BridgeID: br1, CIDR: pfx("10.0.0.128/25")[0]}), "cidr: 10.0.0.128/25 overlaps 10.0.0.0/24 of subnet n4"},
		{create(subnet4(nil), &Port{Meta: Meta{ID: id(44), Name: "p"}, BridgeID: br1, Addresses: pfx("10.0.1.5/32")}), "port p: addresses[0]: 10.0.1.5 is outside the bridge's subnets"},
		{create(subnet4(nil), &Port{Meta: Meta{ID: id(44), Name: "p"}, BridgeID: br1, Addresses: pfx("10.0.0.255/32")}), "port p: addresses[0]: 10.0.0.255 is the broadcast"},
		{v4(func(s *Subnet) { s.CIDR, s.Gateway = pfx("10.0.4.0/24")[0], netip.Addr{} }), "is outside the bridge's subnets"}, // the ports that are there
	} {
		g := sampleGraph(t)
		_, err := g.Stage(c.ops...)
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// Subnets change with the ports on them, or not at all.
func TestSubnetAndItsPorts(t *testing.T) {
	g := sampleGraph(t)
	stage := func(ops ...Op) error {
		s, err := g.Stage(ops...)
		if err == nil {
			s.Commit(2)
		}
		return err
	}
	if err := stage(create(subnet4(nil), subnet6(nil))...); err != nil {
		t.Fatal(err)
	}
	if err := stage(replace(&Subnet{Meta: Meta{ID: id(41)}, BridgeID: br2, CIDR: pfx("10.0.0.0/24")[0]})...); err == nil || !strings.Contains(err.Error(), "cannot change") {
		t.Errorf("the subnet moved to another bridge: %v", err)
	}
	far := &Subnet{Meta: Meta{ID: id(43)}, BridgeID: br1, CIDR: pfx("10.0.4.0/24")[0]}
	if err := stage(create(far)...); err != nil {
		t.Error(err)
	}
	if err := stage(remove(subnet4(nil))...); err == nil || !strings.Contains(err.Error(), "is outside the bridge's subnets") {
		t.Errorf("the subnet of two ports was removed: %v", err)
	}
	if err := stage(append(remove(subnet4(nil)), remove(far)...)...); err != nil {
		t.Errorf("without any subnet a bridge takes every address: %v", err)
	}
	if err := stage(remove(&Bridge{Meta: Meta{ID: br1}})...); !errors.Is(err, ErrReferenced) {
		t.Errorf("the bridge of a subnet: %v", err)
	}
}
