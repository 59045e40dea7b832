package model

import (
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

// IPv6Mode is how hosts get IPv6 addresses, in Neutron's words.
type IPv6Mode string

// Modes.
const (
	IPv6None      IPv6Mode = ""                 // by other means
	IPv6SLAAC     IPv6Mode = "slaac"            // from the prefix (RFC 4862)
	IPv6Stateful  IPv6Mode = "dhcpv6-stateful"  // from DHCPv6
	IPv6Stateless IPv6Mode = "dhcpv6-stateless" // from the prefix; the rest from DHCPv6
)

// Subnet is a range of addresses on a bridge, and what its hosts are told about it by DHCP and router
// advertisements. A host's fixed addresses are those of its bridge port.
type Subnet struct {
	Meta
	BridgeID   uuid.UUID
	VLAN       uint16 // that the hosts are in; 0: their frames have no tag
	CIDR       netip.Prefix
	Gateway    netip.Addr // optional
	EnableDHCP bool
	DNSServers []netip.Addr
	Domain     string
	MTU        int // bytes of an IP packet; default DefaultMTU
	LeaseTime  int // seconds; default DefaultLeaseTime
	HostRoutes []HostRoute
	// ExtraOptions are further DHCP options, ordered by name, each once.
	ExtraOptions []ExtraOption
	// IPv6RAMode is what router advertisements say; none are sent when it is empty.
	IPv6RAMode IPv6Mode
	// IPv6AddressMode is what DHCPv6 offers; nothing when it is empty.
	IPv6AddressMode IPv6Mode
}

// HostRoute is a route that hosts of a subnet install.
type HostRoute struct {
	Destination netip.Prefix
	NextHop     netip.Addr
}

// ExtraOption is a DHCP option by its name or number, with its value as people write it
// (package dhcp: ParseOption).
type ExtraOption struct{ Name, Value string }

// Defaults of a Subnet.
const (
	DefaultMTU       = 1450  // what VXLAN leaves of 1500 bytes of Ethernet
	DefaultLeaseTime = 86400 // a day
)

// Kind implements Object.
func (*Subnet) Kind() Kind { return KindSubnet }

func (s *Subnet) clone() Subnet {
	c := *s
	c.DNSServers, c.HostRoutes, c.ExtraOptions = slices.Clone(s.DNSServers), slices.Clone(s.HostRoutes), slices.Clone(s.ExtraOptions)
	return c
}

func (s *Subnet) normalize() {
	if s.MTU == 0 {
		s.MTU = DefaultMTU
	}
	if s.LeaseTime == 0 {
		s.LeaseTime = DefaultLeaseTime
	}
}
