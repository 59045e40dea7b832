// Package wire is the shape of the virtual network's objects in JSON: what the native API
// speaks. The structs carry their own documentation for OpenAPI; conversion to and from
// package model is beside them, so that nothing inside knows JSON.
package wire

import (
	"fmt"
	"strings"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Meta is common to all objects.
type Meta struct {
	ID       string `json:"id,omitempty" format:"uuid" doc:"Identifier (UUID). Chosen by the server when absent on creation."`
	Name     string `json:"name,omitempty" maxLength:"255" doc:"Name, unique within its kind and tenant; may be empty."`
	Tenant   string `json:"tenant,omitempty" maxLength:"255" doc:"Whose it is (Neutron: project_id); absent for the operators' own. A tenant's token sets it. It never changes."`
	Shared   bool   `json:"shared,omitempty" doc:"Every tenant sees it and may refer to it. Only operators share."`
	Revision int64  `json:"revision,omitempty" readOnly:"true" doc:"Revision of the last change, also the ETag. Ignored in requests: use If-Match."`
}

// Bridge is model.Bridge on the wire.
type Bridge struct {
	Meta
	AdminStateUp     *bool  `json:"admin_state_up,omitempty" default:"true" doc:"A bridge that is down forwards nothing."`
	PreForwardingID  string `json:"pre_forwarding_id,omitempty" format:"uuid" doc:"Chain that frames pass before the bridge decides where they go."`
	PostForwardingID string `json:"post_forwarding_id,omitempty" format:"uuid" doc:"Chain that frames pass after that, once for each port they leave by."`
}

// Router is model.Router on the wire.
type Router struct {
	Meta
	AdminStateUp  *bool  `json:"admin_state_up,omitempty" default:"true" doc:"A router that is down forwards nothing."`
	PreRoutingID  string `json:"pre_routing_id,omitempty" format:"uuid" doc:"Chain that packets pass before the route lookup."`
	PostRoutingID string `json:"post_routing_id,omitempty" format:"uuid" doc:"Chain that packets pass which are routed on, after the lookup."`
}

// Port is model.Port on the wire.
type Port struct {
	Meta
	BridgeID     string   `json:"bridge_id,omitempty" format:"uuid" doc:"Bridge that the port belongs to. Exactly one of bridge_id and router_id is set."`
	RouterID     string   `json:"router_id,omitempty" format:"uuid" doc:"Router that the port belongs to. Exactly one of bridge_id and router_id is set."`
	PeerID       string   `json:"peer_id,omitempty" format:"uuid" doc:"Port at the other end of an interior link; it must name this port in return. A port with a peer has no binding."`
	AdminStateUp *bool    `json:"admin_state_up,omitempty" default:"true" doc:"A port that is down neither sends nor receives."`
	MAC          string   `json:"mac,omitempty" example:"02:00:00:00:00:01" doc:"Router port: its own MAC address, derived from the id when absent. Bridge port: the VM's, optional; seeds the bridge's MAC table."`
	Addresses    []string `json:"addresses,omitempty" example:"[\"10.0.1.1/24\"]" doc:"Router port: its own IPv4 and IPv6 addresses, each with the prefix length of the link. Bridge port: the VM's addresses, optional; with mac they seed the bridge's ARP table."`
	Masquerade   *bool    `json:"masquerade,omitempty" default:"false" doc:"Router port: IPv4 packets that leave by it get its first IPv4 address, and a port of it, as their source."`

	InboundFilterID  string   `json:"inbound_filter_id,omitempty" format:"uuid" doc:"Chain that packets pass which come in by the port."`
	OutboundFilterID string   `json:"outbound_filter_id,omitempty" format:"uuid" doc:"Chain that packets pass which leave by the port; not those that its device makes itself."`
	PortGroups       []string `json:"port_groups,omitempty" doc:"Port groups that the port is in (UUIDs)."`

	PortSecurity        bool          `json:"port_security,omitempty" doc:"Of a bridge port: the VM may send only IP, ARP and neighbour discovery, from mac with one of addresses or its link-local address or from an allowed pair; no answers of DHCP servers, no router advertisements. Needs mac."`
	AllowedAddressPairs []AddressPair `json:"allowed_address_pairs,omitempty" doc:"What else the VM may send from; only with port_security."`
	SecurityGroups      []string      `json:"security_groups,omitzero" required:"false" doc:"Security groups that the port is in (UUIDs); only with port_security. Absent: the tenant's group called default, if there is one. Empty: none, so that nothing is allowed."`

	VLAN int `json:"vlan,omitempty" minimum:"0" maximum:"4094" doc:"Of a bridge port: makes it an access port of this VLAN, and the bridge VLAN-aware. Frames that come in are tagged, only frames with that tag leave by the port, and lose it. Absent or 0: the port carries tags, as trunks do."`

	QoSPolicyID string `json:"qos_policy_id,omitempty" format:"uuid" doc:"Of a bridge port: policy that says what its VM may use of the network."`

	TunnelKey uint32 `json:"tunnel_key,omitempty" maximum:"16777214" doc:"VXLAN network identifier by which other hosts send to the port. Chosen by the server; it cannot change."`
}

// AddressPair is model.AddressPair on the wire and in documents.
type AddressPair struct {
	MAC     string `json:"mac,omitempty" yaml:"mac" example:"02:00:00:00:00:01" doc:"MAC address; the port's own when absent."`
	Address string `json:"address" yaml:"address,required" example:"10.0.1.100" doc:"Address or subnet."`
}

// Route is model.Route on the wire.
type Route struct {
	Meta
	RouterID    string `json:"router_id" format:"uuid" doc:"Router whose table holds the route."`
	Destination string `json:"destination" example:"10.0.2.0/24" doc:"Destination prefix."`
	Source      string `json:"source,omitempty" example:"10.0.0.0/8" doc:"Source prefix; any when absent."`
	NextHop     string `json:"next_hop,omitempty" enum:"port,blackhole,reject" default:"port" doc:"What happens to a packet: sent out of a port, dropped silently, or answered with 'administratively prohibited'."`
	PortID      string `json:"port_id,omitempty" format:"uuid" doc:"Port of the same router to send out of; only with next_hop port."`
	Gateway     string `json:"gateway,omitempty" example:"10.0.1.254" doc:"Address of the next router; when absent the destination is on the link."`
	Weight      *int   `json:"weight,omitempty" default:"100" minimum:"1" doc:"Among equal prefixes the lowest weight wins."`
}

// TunnelZone is model.TunnelZone on the wire.
type TunnelZone struct {
	Meta
}

// Host is model.Host on the wire.
type Host struct {
	Meta
	Tunnels []TunnelEnd `json:"tunnels,omitempty" doc:"Where other hosts reach this one, one address for each tunnel zone that it is in. Of several zones that two hosts share, the first in the list of the one that sends is used."`
}

// TunnelEnd is model.TunnelEnd on the wire.
type TunnelEnd struct {
	ZoneID  string `json:"zone_id" format:"uuid" doc:"Tunnel zone."`
	Address string `json:"address" example:"192.0.2.1" doc:"Address in the underlay."`
}

// Binding is model.Binding on the wire.
type Binding struct {
	Meta
	PortID    string `json:"port_id" format:"uuid" doc:"Port that is bound; also the binding's id."`
	HostID    string `json:"host_id" format:"uuid" doc:"Host on which the interface is."`
	Interface string `json:"interface" minLength:"1" example:"veth-vm1" doc:"Name of the host's network interface."`
	FromID    string `json:"from_id,omitempty" format:"uuid" doc:"Of a port that moves, the host that has it still: it lets go, and hands over the port's connections, before host_id begins. The system sets it. Written with the value of host_id, it takes the port without waiting for anybody."`
}

// FloatingIP is model.FloatingIP on the wire.
type FloatingIP struct {
	Meta
	PortID       string `json:"port_id" format:"uuid" doc:"Router port on whose link the address is: the router answers for it there."`
	Address      string `json:"address" example:"203.0.113.10" doc:"The floating address."`
	FixedAddress string `json:"fixed_address" example:"10.0.1.10" doc:"The address behind the router that it stands for, both ways."`
}

// Object is a pointer to any of the structs above.
type Object interface {
	Kind() model.Kind
	GetMeta() *Meta
	// Model converts. A malformed field is reported as FieldErrors; whether the object fits
	// its surroundings is for the store to say.
	Model() (model.Object, error)
}

// GetMeta implements Object.
func (m *Meta) GetMeta() *Meta { return m }

// Kind implements Object.
func (*Bridge) Kind() model.Kind { return model.KindBridge }

// Kind implements Object.
func (*Router) Kind() model.Kind { return model.KindRouter }

// Kind implements Object.
func (*Port) Kind() model.Kind { return model.KindPort }

// Kind implements Object.
func (*Route) Kind() model.Kind { return model.KindRoute }

// Kind implements Object.
func (*TunnelZone) Kind() model.Kind { return model.KindZone }

// Kind implements Object.
func (*Host) Kind() model.Kind { return model.KindHost }

// Kind implements Object.
func (*Binding) Kind() model.Kind { return model.KindBinding }

// Kind implements Object.
func (*FloatingIP) Kind() model.Kind { return model.KindFloatingIP }

// New returns an empty object of the kind, or nil when there is no such kind.
func New(kind model.Kind) Object {
	switch kind {
	case model.KindBridge:
		return new(Bridge)
	case model.KindRouter:
		return new(Router)
	case model.KindPort:
		return new(Port)
	case model.KindRoute:
		return new(Route)
	case model.KindZone:
		return new(TunnelZone)
	case model.KindHost:
		return new(Host)
	case model.KindBinding:
		return new(Binding)
	case model.KindFloatingIP:
		return new(FloatingIP)
	case model.KindChain:
		return new(Chain)
	case model.KindRule:
		return new(Rule)
	case model.KindPortGroup:
		return new(PortGroup)
	case model.KindAddressGroup:
		return new(AddressGroup)
	case model.KindQoSPolicy:
		return new(QoSPolicy)
	case model.KindMirror:
		return new(Mirror)
	case model.KindSecurityGroup:
		return new(SecurityGroup)
	case model.KindSecurityGroupRule:
		return new(SecurityGroupRule)
	case model.KindSubnet:
		return new(Subnet)
	case model.KindLoadBalancer:
		return new(LoadBalancer)
	case model.KindPool:
		return new(Pool)
	case model.KindPoolMember:
		return new(PoolMember)
	}
	return nil
}

// Plural is the kind as a collection's name: "bridges".
func Plural(kind model.Kind) string { return string(kind) + "s" }

// ParseKind accepts a kind in singular or plural.
func ParseKind(s string) (model.Kind, error) {
	for _, k := range model.Kinds {
		if s == string(k) || s == Plural(k) {
			return k, nil
		}
	}
	return "", fmt.Errorf("no kind %q: there are %s", s, kindList())
}

func kindList() string {
	var b strings.Builder
	for i, k := range model.Kinds {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(k))
	}
	return b.String()
}
