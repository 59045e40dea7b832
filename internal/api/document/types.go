package document

import (
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Value is the content of a document about the virtual network: a pointer to one of the structs below. References
// in it are names, ids, or unique beginnings of ids.
type Value interface {
	Kind() model.Kind
	identity() (name, id string)
}

// Bridge is a virtual switch.
type Bridge struct {
	Name           string `yaml:"name"`
	ID             string `yaml:"id"`
	AdminStateUp   *bool  `yaml:"admin_state_up"`
	PreForwarding  string `yaml:"pre_forwarding"`
	PostForwarding string `yaml:"post_forwarding"`
}

// Router is a virtual router.
type Router struct {
	Name         string `yaml:"name"`
	ID           string `yaml:"id"`
	AdminStateUp *bool  `yaml:"admin_state_up"`
	PreRouting   string `yaml:"pre_routing"`
	PostRouting  string `yaml:"post_routing"`
}

// TunnelZone is a set of hosts that reach each other over VXLAN.
type TunnelZone struct {
	Name string `yaml:"name"`
	ID   string `yaml:"id"`
}

// Host is a machine with an agent.
type Host struct {
	Name    string      `yaml:"name"`
	ID      string      `yaml:"id"`
	Tunnels []TunnelEnd `yaml:"tunnels"` // left out: what there is
}

// TunnelEnd is where a Host is reached in a zone.
type TunnelEnd struct {
	Zone    string `yaml:"zone,required"`
	Address string `yaml:"address,required"`
}

// Port is a port of Bridge or of Router. Peer and Binding that are absent leave what there is;
// null takes it away.
type Port struct {
	Name         string       `yaml:"name"`
	ID           string       `yaml:"id"`
	Bridge       string       `yaml:"bridge"`
	Router       string       `yaml:"router"`
	Peer         string       `yaml:"peer"` // naming it at one end is enough
	MAC          string       `yaml:"mac"`
	Addresses    []string     `yaml:"addresses"`
	AdminStateUp *bool        `yaml:"admin_state_up"`
	Masquerade   *bool        `yaml:"masquerade"`
	Binding      *PortBinding `yaml:"binding"` // in place of a document of its own

	InboundFilter  string   `yaml:"inbound_filter"`
	OutboundFilter string   `yaml:"outbound_filter"`
	PortGroups     []string `yaml:"port_groups"`

	PortSecurity        bool               `yaml:"port_security"`
	AllowedAddressPairs []wire.AddressPair `yaml:"allowed_address_pairs"`
	SecurityGroups      []string           `yaml:"security_groups"` // an empty list is not the same as none

	VLAN int `yaml:"vlan"`

	QoSPolicy string `yaml:"qos_policy"`
}

// PortBinding is a Port's Binding.
type PortBinding struct {
	Host      string `yaml:"host,required"`
	Interface string `yaml:"interface,required"`
}

// Route is an explicit route.
type Route struct {
	Name        string `yaml:"name"`
	ID          string `yaml:"id"`
	Router      string `yaml:"router,required"`
	Destination string `yaml:"destination,required"`
	Source      string `yaml:"source"`
	NextHop     string `yaml:"next_hop"`
	Port        string `yaml:"port"`
	Gateway     string `yaml:"gateway"`
	Weight      *int   `yaml:"weight"`
}

// Binding attaches a port to a host's interface.
type Binding struct {
	Name      string `yaml:"name"`
	Port      string `yaml:"port,required"`
	Host      string `yaml:"host,required"`
	Interface string `yaml:"interface,required"`
}

// FloatingIP is an address on the link of a router port that stands for a fixed one.
type FloatingIP struct {
	Name         string `yaml:"name"`
	ID           string `yaml:"id"`
	Port         string `yaml:"port,required"`
	Address      string `yaml:"address,required"`
	FixedAddress string `yaml:"fixed_address,required"`
}

// Kind implements Value.
func (*FloatingIP) Kind() model.Kind { return model.KindFloatingIP }

func (v *FloatingIP) identity() (name, id string) { return v.Name, v.ID }

// Kind implements Value.
func (*Bridge) Kind() model.Kind { return model.KindBridge }

// Kind implements Value.
func (*Router) Kind() model.Kind { return model.KindRouter }

// Kind implements Value.
func (*TunnelZone) Kind() model.Kind { return model.KindZone }

// Kind implements Value.
func (*Host) Kind() model.Kind { return model.KindHost }

// Kind implements Value.
func (*Port) Kind() model.Kind { return model.KindPort }

// Kind implements Value.
func (*Route) Kind() model.Kind { return model.KindRoute }

// Kind implements Value.
func (*Binding) Kind() model.Kind { return model.KindBinding }

func (v *Bridge) identity() (name, id string)     { return v.Name, v.ID }
func (v *Router) identity() (name, id string)     { return v.Name, v.ID }
func (v *TunnelZone) identity() (name, id string) { return v.Name, v.ID }
func (v *Host) identity() (name, id string)       { return v.Name, v.ID }
func (v *Port) identity() (name, id string)       { return v.Name, v.ID }
func (v *Route) identity() (name, id string)      { return v.Name, v.ID }
func (v *Binding) identity() (name, id string)    { return v.Name, "" }

func newValue(kind string) Value {
	switch model.Kind(kind) {
	case model.KindBridge:
		return new(Bridge)
	case model.KindRouter:
		return new(Router)
	case model.KindZone:
		return new(TunnelZone)
	case model.KindHost:
		return new(Host)
	case model.KindPort:
		return new(Port)
	case model.KindRoute:
		return new(Route)
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
