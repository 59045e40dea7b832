package pathtest

import (
	"net/netip"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// subnet reads the rest of
//
//	subnet NAME BRIDGE CIDR [vlan=N] [gw=ADDR] [dns=ADDR,...] [domain=NAME] [mtu=N] [lease=SECONDS]
//	       [route=PREFIX>ADDR] [option=NAME:VALUE] [mode=slaac|stateful|stateless] [off]
//
// mode is that of both router advertisements and addresses (IPv6).
func (t *Topology) subnet(name, bridge string, f []string) {
	s := view.Subnet{ID: ID(name), Name: name, Subnet: dhcp.Subnet{Prefix: netip.MustParsePrefix(f[0]), MTU: 1450, Lease: 86400}}
	six := s.Prefix.Addr().Is6()
	s.DHCP = !six
	for _, x := range f[1:] {
		key, value, _ := strings.Cut(x, "=")
		switch key {
		case "vlan":
			s.VLAN = uint16(number(value))
		case "gw":
			s.Gateway = netip.MustParseAddr(value)
		case "dns":
			for a := range strings.SplitSeq(value, ",") {
				s.DNS = append(s.DNS, netip.MustParseAddr(a))
			}
		case "domain":
			s.Domain = value
		case "mtu":
			s.MTU = number(value)
		case "lease":
			s.Lease = uint32(number(value))
		case "route":
			dst, via, _ := strings.Cut(value, ">")
			s.Routes = append(s.Routes, dhcp.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via)})
		case "option":
			name, value, _ := strings.Cut(value, ":")
			o, err := dhcp.ParseOption(six, name, value)
			if err != nil {
				panic(err)
			}
			s.Options = append(s.Options, o)
		case "mode":
			s.RA, s.DHCP, s.DHCPv6 = true, value != "slaac", value == "stateful"
			s.Managed, s.Other, s.Auto = s.DHCPv6, s.DHCP, !s.DHCPv6
		case "off":
			s.DHCP = false
		default:
			panic("unknown word " + key)
		}
	}
	br := t.Bridges[ID(bridge)]
	br.Subnets = append(br.Subnets, s)
	t.name(name)
}
