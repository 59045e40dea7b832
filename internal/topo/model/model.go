// Package model is what the virtual network IS: native types, their validation, and
// the rules that keep references between them whole. It knows no wire format.
package model

import (
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Kind names a type of object: lower case, singular.
type Kind string

// Kinds.
const (
	KindBridge  Kind = "bridge"
	KindRouter  Kind = "router"
	KindPort    Kind = "port"
	KindRoute   Kind = "route"
	KindHost    Kind = "host"
	KindZone    Kind = "tunnel_zone"
	KindBinding Kind = "binding"
	KindSubnet  Kind = "subnet"

	KindFloatingIP   Kind = "floating_ip"
	KindChain        Kind = "chain"
	KindRule         Kind = "rule"
	KindPortGroup    Kind = "port_group"
	KindAddressGroup Kind = "address_group"

	KindQoSPolicy Kind = "qos_policy"
	KindMirror    Kind = "mirror"

	KindSecurityGroup     Kind = "security_group"
	KindSecurityGroupRule Kind = "security_group_rule"

	KindLoadBalancer Kind = "load_balancer"
	KindPool         Kind = "pool"
	KindPoolMember   Kind = "pool_member"
)

// Kinds lists all kinds in the order in which they may be created: what is referred to first.
var Kinds = []Kind{
	KindChain, KindPortGroup, KindAddressGroup, KindQoSPolicy, KindSecurityGroup, KindSecurityGroupRule, KindBridge, KindSubnet, KindRouter, KindZone, KindHost, KindPort, KindRoute,
	KindBinding, KindFloatingIP, KindRule, KindMirror, KindPool, KindPoolMember, KindLoadBalancer,
}

// Meta is common to all objects.
type Meta struct {
	ID   uuid.UUID
	Name string // unique within its kind and tenant; may be empty
	// Tenant is whose the object is (Neutron: project_id); empty for the operators' own. It never changes.
	Tenant string
	// Shared lets every tenant see the object and refer to it; it stays its owner's.
	Shared bool
	// Revision is the store's revision of the last change; 0 before it is stored.
	Revision int64
}

// Object is any of the types below, as a pointer.
type Object interface {
	Kind() Kind
	GetMeta() *Meta
}

// GetMeta implements Object.
func (m *Meta) GetMeta() *Meta { return m }

// Bridge is a virtual switch.
type Bridge struct {
	Meta
	AdminStateUp bool
	// Chains that frames pass before and after the bridge has decided where they go; Nil: none.
	PreForwardingID, PostForwardingID uuid.UUID
}

// Router is a virtual router.
type Router struct {
	Meta
	AdminStateUp bool
	// Chains that packets pass before and after the route lookup; Nil: none.
	PreRoutingID, PostRoutingID uuid.UUID
}

// Port belongs to a bridge or to a router: exactly one of BridgeID and RouterID is set.
// An interior port names its peer, which names it in return; an exterior one has a
// Binding. A port never has both.
type Port struct {
	Meta
	BridgeID     uuid.UUID
	RouterID     uuid.UUID
	PeerID       uuid.UUID
	AdminStateUp bool
	// MAC of a router port: its own (derived from the id when absent). Of a bridge
	// port: the VM's, optional; it seeds the bridge's MAC table.
	MAC match.MAC
	// Addresses of a router port: its own, with the subnet on the link. Of a bridge port:
	// the VM's, optional, as full-length prefixes; with MAC they seed the bridge's ARP table.
	Addresses []netip.Prefix
	// Masquerade of a router port: IPv4 packets that leave by it get its first address, and a port of it, as their
	// source; answers find their way back.
	Masquerade bool
	// Chains that packets pass which come in by the port, and which leave by it; Nil: none. Packets
	// that the port's device makes itself pass no filter of the port.
	InboundFilterID, OutboundFilterID uuid.UUID
	PortGroups                        []uuid.UUID // that the port is in
	// PortSecurity of a bridge port lets its VM send only IP, ARP and neighbour discovery from MAC with one of Addresses or the
	// link-local address of MAC, or from an allowed pair; and no answers of DHCP servers, no router advertisements.
	PortSecurity        bool
	AllowedAddressPairs []AddressPair
	// SecurityGroups of a port with PortSecurity; nil: it is in its tenant's DefaultGroup, if there is such a group, and else in
	// none and filtered by none. An empty list: in none, so that nothing is allowed.
	SecurityGroups []uuid.UUID
	// VLAN of a bridge port, 1 to 4094, makes it an access port and the bridge VLAN-aware: frames that come in are
	// tagged with it, only frames with that tag leave by the port, and lose it. 0: the port carries tags, as trunks do.
	VLAN uint16
	// TunnelKey is the VXLAN network identifier by which other hosts send to the port, 1 to MaxTunnelKey; unique. It is chosen
	// when the port is stored first, and stays.
	TunnelKey uint32
	// QoSPolicyID is what a bridge port's VM may use of the network; Nil: it is not limited.
	QoSPolicyID uuid.UUID
}

// AddressPair is what a VM may send from beside its own addresses.
type AddressPair struct {
	MAC     match.MAC // zero: the port's own
	Address netip.Prefix
}

// NextHop is what a Route does.
type NextHop string

// Next hops.
const (
	NextHopPort      NextHop = "port"
	NextHopBlackhole NextHop = "blackhole"
	NextHopReject    NextHop = "reject"
)

// Route is an explicit route. Routes to a port's own addresses and their subnets
// exist by themselves.
type Route struct {
	Meta
	RouterID    uuid.UUID
	Destination netip.Prefix
	Source      netip.Prefix // zero: any
	NextHop     NextHop
	PortID      uuid.UUID  // for NextHopPort
	Gateway     netip.Addr // optional
	Weight      int        // lower wins; default 100
}

// TunnelZone is a set of hosts that reach each other over VXLAN, by the address that each has in it.
type TunnelZone struct {
	Meta
}

// Host is a machine with an agent.
type Host struct {
	Meta
	// Tunnels are the host's ends of tunnels, one for each zone that it is in. Two hosts use the zone that comes first in the
	// list of the one that sends.
	Tunnels []TunnelEnd
}

// TunnelEnd is where a host is reached in a zone.
type TunnelEnd struct {
	ZoneID  uuid.UUID
	Address netip.Addr // of the underlay
}

// FloatingIP is an address on the link of a router port that stands for a fixed one behind the router, both
// ways: the router answers for it, packets to it go to the fixed address, and what comes from there leaves with it.
type FloatingIP struct {
	Meta
	PortID       uuid.UUID // the router port
	Address      netip.Addr
	FixedAddress netip.Addr
}

// Kind implements Object.
func (*FloatingIP) Kind() Kind { return KindFloatingIP }

// Kind implements Object.
func (*Bridge) Kind() Kind { return KindBridge }

// Kind implements Object.
func (*Router) Kind() Kind { return KindRouter }

// Kind implements Object.
func (*Port) Kind() Kind { return KindPort }

// Kind implements Object.
func (*Route) Kind() Kind { return KindRoute }

// Kind implements Object.
func (*TunnelZone) Kind() Kind { return KindZone }

// Kind implements Object.
func (*Host) Kind() Kind { return KindHost }

// Kind implements Object.
func (*Binding) Kind() Kind { return KindBinding }
