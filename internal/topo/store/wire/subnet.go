package wire

import "github.com/viaduct-net/viaduct/internal/topo/model"

func encodeSubnet(s *model.Subnet) wireSubnet {
	w := wireSubnet{
		ID: s.ID, Name: s.Name, Bridge: s.BridgeID, VLAN: s.VLAN, CIDR: s.CIDR, Gateway: optional(s.Gateway), EnableDHCP: s.EnableDHCP,
		DNSServers: s.DNSServers, Domain: s.Domain, MTU: s.MTU, LeaseTime: s.LeaseTime,
		IPv6RAMode: s.IPv6RAMode, IPv6AddressMode: s.IPv6AddressMode,
	}
	for _, r := range s.HostRoutes {
		w.HostRoutes = append(w.HostRoutes, wireHostRoute(r))
	}
	for _, x := range s.ExtraOptions {
		w.ExtraOptions = append(w.ExtraOptions, wireExtraOption(x))
	}
	return w
}

func (w wireSubnet) model() *model.Subnet {
	s := &model.Subnet{
		Meta: model.Meta{ID: w.ID, Name: w.Name}, BridgeID: w.Bridge, VLAN: w.VLAN, CIDR: w.CIDR, Gateway: value(w.Gateway), EnableDHCP: w.EnableDHCP,
		DNSServers: w.DNSServers, Domain: w.Domain, MTU: w.MTU, LeaseTime: w.LeaseTime,
		IPv6RAMode: w.IPv6RAMode, IPv6AddressMode: w.IPv6AddressMode,
	}
	for _, r := range w.HostRoutes {
		s.HostRoutes = append(s.HostRoutes, model.HostRoute(r))
	}
	for _, x := range w.ExtraOptions {
		s.ExtraOptions = append(s.ExtraOptions, model.ExtraOption(x))
	}
	return s
}
