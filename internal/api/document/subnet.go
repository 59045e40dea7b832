package document

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Subnet is a range of addresses on a bridge, and what its hosts are told.
type Subnet struct {
	Name            string            `yaml:"name"`
	ID              string            `yaml:"id"`
	Bridge          string            `yaml:"bridge,required"`
	VLAN            int               `yaml:"vlan"`
	CIDR            string            `yaml:"cidr,required"`
	Gateway         string            `yaml:"gateway"`
	EnableDHCP      *bool             `yaml:"enable_dhcp"`
	DNSServers      []string          `yaml:"dns_servers"`
	Domain          string            `yaml:"domain"`
	MTU             *int              `yaml:"mtu"`
	LeaseTime       *int              `yaml:"lease_time"`
	HostRoutes      []wire.HostRoute  `yaml:"host_routes"`
	ExtraOptions    map[string]string `yaml:"extra_options"`
	IPv6RAMode      string            `yaml:"ipv6_ra_mode"`
	IPv6AddressMode string            `yaml:"ipv6_address_mode"`
}

// Kind implements Value.
func (*Subnet) Kind() model.Kind { return model.KindSubnet }

func (v *Subnet) identity() (name, id string) { return v.Name, v.ID }

func (p *planner) subnet(d *Doc, v *Subnet, id uuid.UUID) {
	p.put(d, "", &wire.Subnet{
		Meta: meta(id, v.Name), BridgeID: p.find(d, "bridge", model.KindBridge, v.Bridge), VLAN: v.VLAN, CIDR: v.CIDR, Gateway: v.Gateway,
		EnableDHCP: v.EnableDHCP, DNSServers: v.DNSServers, Domain: v.Domain, MTU: v.MTU, LeaseTime: v.LeaseTime,
		HostRoutes: v.HostRoutes, ExtraOptions: v.ExtraOptions, IPv6RAMode: v.IPv6RAMode, IPv6AddressMode: v.IPv6AddressMode,
	})
}

// renderSubnet adds the fields to a document.
func renderSubnet(o *model.Subnet, x *ref.Index, add func(string, any), text func(key, value string)) {
	w := wire.FromModel(o).(*wire.Subnet)
	add("bridge", x.Label(model.KindBridge, o.BridgeID))
	if w.VLAN != 0 {
		add("vlan", w.VLAN)
	}
	text("cidr", w.CIDR)
	text("gateway", w.Gateway)
	add("enable_dhcp", o.EnableDHCP)
	if len(w.DNSServers) > 0 {
		add("dns_servers", w.DNSServers)
	}
	text("domain", w.Domain)
	add("mtu", o.MTU)
	add("lease_time", o.LeaseTime)
	if len(w.HostRoutes) > 0 {
		add("host_routes", w.HostRoutes)
	}
	if len(w.ExtraOptions) > 0 {
		add("extra_options", w.ExtraOptions)
	}
	text("ipv6_ra_mode", w.IPv6RAMode)
	text("ipv6_address_mode", w.IPv6AddressMode)
}
