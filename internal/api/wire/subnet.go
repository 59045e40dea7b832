package wire

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Subnet is model.Subnet on the wire.
type Subnet struct {
	Meta
	BridgeID        string            `json:"bridge_id" format:"uuid" doc:"Bridge whose hosts the subnet is for."`
	VLAN            int               `json:"vlan,omitempty" minimum:"0" maximum:"4094" doc:"VLAN of the hosts: those at access ports of it, and those that send its tag. 0: without a tag."`
	CIDR            string            `json:"cidr" example:"10.0.1.0/24" doc:"Range of addresses. Those of the bridge's ports must be in one of its subnets; subnets of one bridge and VLAN do not overlap."`
	Gateway         string            `json:"gateway,omitempty" example:"10.0.1.1" doc:"Default router of the hosts; DHCP answers come from it."`
	EnableDHCP      *bool             `json:"enable_dhcp,omitempty" default:"true" doc:"Whether hosts are answered: each gets the address of its port."`
	DNSServers      []string          `json:"dns_servers,omitempty" maxItems:"8" doc:"Resolvers, of the subnet's family."`
	Domain          string            `json:"domain,omitempty" example:"blue.example.org" doc:"Domain of the hosts."`
	MTU             *int              `json:"mtu,omitempty" default:"1450" minimum:"68" maximum:"65535" doc:"Longest IP packet on the link, in bytes. Routers on the link keep to it, too."`
	LeaseTime       *int              `json:"lease_time,omitempty" default:"86400" minimum:"10" doc:"How long hosts may use what they were told, in seconds; they renew after half of it."`
	HostRoutes      []HostRoute       `json:"host_routes,omitempty" maxItems:"32" doc:"Further routes of the hosts (IPv4)."`
	ExtraOptions    map[string]string `json:"extra_options,omitempty" example:"{\"ntp-server\":\"10.0.1.3\"}" doc:"Further DHCP options, by name or by number."`
	IPv6RAMode      string            `json:"ipv6_ra_mode,omitempty" enum:"slaac,dhcpv6-stateful,dhcpv6-stateless" doc:"What router advertisements tell hosts to do; none are sent when absent."`
	IPv6AddressMode string            `json:"ipv6_address_mode,omitempty" enum:"slaac,dhcpv6-stateful,dhcpv6-stateless" doc:"What DHCPv6 offers: addresses and the rest (dhcpv6-stateful), the rest alone (dhcpv6-stateless), or nothing."`
}

// HostRoute is a route that hosts install.
type HostRoute struct {
	Destination string `json:"destination" yaml:"destination,required" example:"10.9.0.0/16" doc:"Destination prefix."`
	NextHop     string `json:"next_hop" yaml:"next_hop,required" example:"10.0.1.254" doc:"Router on the subnet."`
}

// Kind implements Object.
func (*Subnet) Kind() model.Kind { return model.KindSubnet }

// Model implements Object.
func (w *Subnet) Model() (model.Object, error) {
	var p parser
	o := &model.Subnet{
		Meta: p.meta(w.Meta), BridgeID: p.id("bridge_id", w.BridgeID), VLAN: p.vlan("vlan", w.VLAN), CIDR: p.prefix("cidr", w.CIDR), EnableDHCP: orTrue(w.EnableDHCP),
		Domain: w.Domain, MTU: model.DefaultMTU, LeaseTime: model.DefaultLeaseTime,
		IPv6RAMode: model.IPv6Mode(w.IPv6RAMode), IPv6AddressMode: model.IPv6Mode(w.IPv6AddressMode),
	}
	if w.Gateway != "" {
		o.Gateway = p.addr("gateway", w.Gateway)
	}
	for i, a := range w.DNSServers {
		o.DNSServers = append(o.DNSServers, p.addr(index("dns_servers", i), a))
	}
	if w.MTU != nil {
		o.MTU = *w.MTU
	}
	if w.LeaseTime != nil {
		o.LeaseTime = *w.LeaseTime
	}
	for i, r := range w.HostRoutes {
		at := index("host_routes", i)
		o.HostRoutes = append(o.HostRoutes, model.HostRoute{
			Destination: p.prefix(at+".destination", r.Destination), NextHop: p.addr(at+".next_hop", r.NextHop)})
	}
	for name, value := range w.ExtraOptions {
		o.ExtraOptions = append(o.ExtraOptions, model.ExtraOption{Name: name, Value: value})
	}
	slices.SortFunc(o.ExtraOptions, func(a, b model.ExtraOption) int { return cmp.Compare(a.Name, b.Name) })
	return p.done(o)
}

func (p *parser) addr(path, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.fail(path, s, "is not an IP address such as 10.0.1.254")
	}
	return a
}

func fromSubnet(s *model.Subnet, meta Meta) *Subnet {
	w := &Subnet{
		Meta: meta, BridgeID: idText(s.BridgeID), VLAN: int(s.VLAN), CIDR: s.CIDR.String(), EnableDHCP: &s.EnableDHCP, Domain: s.Domain,
		IPv6RAMode: string(s.IPv6RAMode), IPv6AddressMode: string(s.IPv6AddressMode),
	}
	if s.Gateway.IsValid() {
		w.Gateway = s.Gateway.String()
	}
	for _, a := range s.DNSServers {
		w.DNSServers = append(w.DNSServers, a.String())
	}
	if s.MTU != 0 { // else not yet given its default
		w.MTU = &s.MTU
	}
	if s.LeaseTime != 0 {
		w.LeaseTime = &s.LeaseTime
	}
	for _, r := range s.HostRoutes {
		w.HostRoutes = append(w.HostRoutes, HostRoute{Destination: r.Destination.String(), NextHop: r.NextHop.String()})
	}
	for _, x := range s.ExtraOptions {
		if w.ExtraOptions == nil {
			w.ExtraOptions = make(map[string]string, len(s.ExtraOptions))
		}
		w.ExtraOptions[x.Name] = x.Value
	}
	return w
}
