// Package view is the virtual network as a simulation reads it: immutable, with
// every reference resolved and every table precomputed. Package mirror builds it.
package view

import (
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Port is a bridge's or a router's port: exactly one of Bridge and Router is set.
// Exterior when Host is set, interior when Peer is set, else unplugged.
type Port struct {
	ID      uuid.UUID
	Name    string
	Bridge  uuid.UUID
	Router  uuid.UUID
	AdminUp bool

	Peer      uuid.UUID // interior: the port at the other end
	Host      uuid.UUID // exterior: where it is bound; of a port that moves, the host that has it still
	Interface string    // exterior: the host's interface
	MovesTo   uuid.UUID // exterior: the host that is to have it as soon as Host has let go, on Interface; Nil: it stays

	MAC   match.MAC      // router port: its own; bridge port: the VM's, when known
	Addrs []netip.Prefix // router port: own addresses with their subnets; bridge port: the VM's
	// LinkLocal is the router port's fe80::/64 address, from its MAC (RFC 4291
	// appendix A). Zero for bridge ports.
	LinkLocal netip.Addr
	MTU       int    // of the L3 link; 0: no limit
	TunnelKey uint32 // by which other hosts send to the port

	// Health: it is not an object's, but the one by which a router's members are checked (package health).
	Health bool
	// Masquerade hides IPv4 sources behind the router port's address.
	Masquerade bool
	// Floating maps floating IPs on the router port's link to fixed addresses, Fixed is its inverse.
	Floating, Fixed   map[match.Addr]match.Addr
	VIPs              []match.Addr // load balancers' on the router port's link, in order
	Inbound, Outbound uuid.UUID    // filter chains; Nil: none
	Groups            []uuid.UUID  // port groups that it is in, in order
	// Siblings are the other ports of its stateful port groups, in order: what comes through this one may come through them.
	Siblings []uuid.UUID
	// Sources is what the VM may send from; nil: anything.
	Sources []Source
	// SecurityGroups that decide what the VM may send and receive, ordered by id; nil: all of it. An empty list: nothing.
	SecurityGroups []uuid.UUID
	Rules          *Translated // by those of its filters
	VLAN           uint16      // bridge port: of an access port; 0: it carries tags

	Mirrors []Mirror // ordered by id
	// DSCP is written into IP packets that come in; nil: they keep theirs.
	DSCP         *uint8
	FromVM, ToVM Rate
}

// Source is a MAC address with a set of IP addresses.
type Source struct {
	MAC   match.MAC
	Addrs netip.Prefix
	bits  Prefix // Addrs
}

// NewSource makes a Source.
func NewSource(mac match.MAC, addrs netip.Prefix) Source { return Source{mac, addrs, newPrefix(addrs)} }

// Has reports whether the address is in the set.
func (s *Source) Has(a *match.Addr) bool { return s.bits.Contains(a) }

// Exterior reports whether the port is bound to a host interface.
func (p *Port) Exterior() bool { return p.Host != uuid.Nil }

// Owns reports whether a is one of a router port's own addresses, link-local and floating ones and those of load balancers included.
func (p *Port) Owns(a netip.Addr) bool {
	if p.LinkLocal.IsValid() && a == p.LinkLocal {
		return true
	}
	for _, x := range p.Addrs {
		if x.Addr() == a {
			return true
		}
	}
	own := match.AddrFrom(a)
	_, ok := p.Floating[own]
	return ok || slices.Contains(p.VIPs, own)
}

// LinkMAC is a MAC address in a VLAN of a bridge; VLAN 0: that of untagged frames.
type LinkMAC struct {
	MAC  match.MAC
	VLAN uint16
}

// LinkAddr is an IP address in a VLAN of a bridge.
type LinkAddr struct {
	Addr match.Addr
	VLAN uint16
}

// Bridge is a virtual switch.
type Bridge struct {
	ID      uuid.UUID
	Name    string
	AdminUp bool
	// Ports are all that a flood reaches, exterior and interior, ordered by id.
	// Unplugged and administratively down ones are left out.
	Ports []uuid.UUID
	// VLANAware: one of its ports, at least, is an access port. Otherwise frames are switched as if they had no tag,
	// but for what is learnt.
	VLANAware bool
	// MACs are seeded: those of peer router ports, at the bridge's own port, and of VMs whose port names a MAC.
	MACs map[LinkMAC]uuid.UUID
	// Neighbours are seeded: addresses of peer router ports (link-local too) and of VMs whose port names them.
	Neighbours map[LinkAddr]match.MAC
	Pre, Post  uuid.UUID // filter chains before and after forwarding; Nil: none
	// Subnets are what is told to hosts on the bridge, ordered by id.
	Subnets []Subnet
	Rules   *Translated // by those of its filters
	Mirrors []Mirror    // ordered by id
}

// SeedVLAN is where what is seeded is looked up for frames of a VLAN.
func (b *Bridge) SeedVLAN(vlan uint16) uint16 {
	if !b.VLANAware {
		return 0
	}
	return vlan
}

// Subnet is a range of addresses on a bridge. Hosts are told about it as the flags say.
type Subnet struct {
	dhcp.Subnet
	ID      uuid.UUID
	Name    string
	VLAN    uint16
	DHCP    bool // DHCP answers: IPv4 addresses, or IPv6 configuration
	DHCPv6  bool // DHCPv6 also gives addresses
	RA      bool // the gateway advertises itself and the prefix
	Managed bool // RA: addresses are to be had by DHCPv6 (M)
	Other   bool // RA: other configuration is to be had by DHCPv6 (O)
	Auto    bool // RA: hosts form addresses from the prefix (A)
}

// NextHop is what a route does with a packet.
type NextHop uint8

// Next hops.
const (
	ToPort    NextHop = iota // out of Port, to Gateway or directly
	ToLocal                  // one of the router's own addresses
	Blackhole                // dropped silently
	Reject                   // dropped, "administratively prohibited"
)

func (n NextHop) String() string {
	return [...]string{"port", "local", "blackhole", "reject"}[n]
}

// Route is one entry of a router's table.
type Route struct {
	ID      uuid.UUID // Nil: derived from a port's address
	Dst     netip.Prefix
	Src     netip.Prefix // zero: any
	NextHop NextHop
	Port    uuid.UUID  // ToPort, ToLocal
	Gateway netip.Addr // zero: the destination is on the link
	Weight  int        // lower wins
}

// Router is a virtual router.
type Router struct {
	ID      uuid.UUID
	Name    string
	AdminUp bool
	Ports   []uuid.UUID
	NAT     []uuid.UUID // those that masquerade or have floating IPs, ordered by id
	Table   RouteTable

	Pre, Post uuid.UUID   // filter chains before and after routing; Nil: none
	Rules     *Translated // by those of its filters
	Mirrors   []Mirror    // ordered by id

	Health   uuid.UUID                // the port by which members are checked; Nil: none
	VIPs     map[match.Addr]uuid.UUID // load balancers by their address
	Backends map[match.Addr]struct{}  // where their members are
}

// RouteTable finds routes. Implementations are immutable.
type RouteTable interface {
	// Lookup finds the best route: longest destination prefix, then longest source prefix,
	// then lowest weight; ties are broken by hash, so that a connection keeps its
	// path. It does not allocate. Routes whose port is down are not in the table.
	Lookup(dst, src netip.Addr, hash uint32) (*Route, bool)
}

// Host is another host, as seen from this one.
type Host struct {
	ID     uuid.UUID
	Name   string
	Dead   bool
	Tunnel match.Addr // its end of the tunnel; zero: it cannot be reached
	End    match.Addr // the same, though it is dead: it may be cut off from the store alone
}

// Snapshot is one state of the virtual network, or of a part of it.
type Snapshot struct {
	Revision int64
	// Partial: it holds a part. What it has not may exist nevertheless, unless Absent has it.
	Partial bool
	Absent  map[Thing]struct{}

	Hosts    map[uuid.UUID]*Host // other ones
	Ports    map[uuid.UUID]*Port
	Bridges  map[uuid.UUID]*Bridge
	Routers  map[uuid.UUID]*Router
	Chains   map[uuid.UUID]*Chain
	Groups   map[uuid.UUID]*AddressGroup // address groups, and the members' addresses of security groups
	Security map[uuid.UUID]*SecurityGroup

	Balancers map[uuid.UUID]*LoadBalancer
}

// Port returns nil when there is none.
func (s *Snapshot) Port(id uuid.UUID) *Port { return s.Ports[id] }

// Remote says where the packets of an exterior port go that is on another host: to which host, by which tunnel. ok is false
// when that host cannot be reached; the host is Nil when the port is not known or bound nowhere.
func (s *Snapshot) Remote(port uuid.UUID) (host uuid.UUID, peer match.Addr, key uint32, ok bool) {
	p := s.Ports[port]
	if p == nil {
		return uuid.Nil, peer, 0, false
	}
	if h := s.Hosts[p.Host]; h != nil {
		peer = h.Tunnel
	}
	return p.Host, peer, p.TunnelKey, peer != (match.Addr{}) && p.TunnelKey != 0
}

// Bridge returns nil when there is none.
func (s *Snapshot) Bridge(id uuid.UUID) *Bridge { return s.Bridges[id] }

// Router returns nil when there is none.
func (s *Snapshot) Router(id uuid.UUID) *Router { return s.Routers[id] }

// Chain returns nil when there is none.
func (s *Snapshot) Chain(id uuid.UUID) *Chain { return s.Chains[id] }

// SecurityGroup returns nil when there is none.
func (s *Snapshot) SecurityGroup(id uuid.UUID) *SecurityGroup { return s.Security[id] }

// LoadBalancer returns nil when there is none.
func (s *Snapshot) LoadBalancer(id uuid.UUID) *LoadBalancer { return s.Balancers[id] }

// AddressGroup returns nil when there is none.
func (s *Snapshot) AddressGroup(id uuid.UUID) *AddressGroup { return s.Groups[id] }
