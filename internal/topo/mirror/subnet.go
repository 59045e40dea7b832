package mirror

import (
	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func subnet(s *model.Subnet) view.Subnet {
	six := s.CIDR.Addr().Is6()
	v := view.Subnet{
		ID: s.ID, Name: s.Name, VLAN: s.VLAN,
		Subnet: dhcp.Subnet{Prefix: s.CIDR, Gateway: s.Gateway, DNS: s.DNSServers, Domain: s.Domain, MTU: s.MTU, Lease: uint32(s.LeaseTime)},
		DHCP:   s.EnableDHCP && (!six || s.IPv6AddressMode == model.IPv6Stateful || s.IPv6AddressMode == model.IPv6Stateless),
		DHCPv6: s.EnableDHCP && s.IPv6AddressMode == model.IPv6Stateful,
		RA:     s.EnableDHCP && s.IPv6RAMode != model.IPv6None,
	}
	v.Managed = v.RA && s.IPv6RAMode == model.IPv6Stateful
	v.Auto = v.RA && !v.Managed
	v.Other = v.RA && s.IPv6RAMode != model.IPv6SLAAC
	for _, r := range s.HostRoutes {
		v.Routes = append(v.Routes, dhcp.Route{Dst: r.Destination, Via: r.NextHop})
	}
	for _, x := range s.ExtraOptions {
		// One that cannot be read, as data written by hand may hold, is left out.
		if o, err := dhcp.ParseOption(six, x.Name, x.Value); err == nil {
			v.Options = append(v.Options, o)
		}
	}
	return v
}

// linkMTU is the MTU of the link that a router port is on: the least that the subnets of the bridge there
// announce to their hosts; 0 when they say nothing.
func (b builder) linkMTU(p *model.Port) int {
	peer, ok := get[*model.Port](b.graph, p.PeerID)
	if !ok {
		return 0
	}
	mtu := 0
	for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindBridge, ID: peer.BridgeID}, model.KindSubnet) {
		if s := o.(*model.Subnet); s.VLAN != peer.VLAN {
			continue
		}
		if m := o.(*model.Subnet).MTU; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}
