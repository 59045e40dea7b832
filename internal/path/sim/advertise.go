package sim

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// routerLifetime is how long a router stays a host's default router after an advertisement, in seconds: three
// times the interval at which agents advertise (RFC 4861 section 6.2.1).
const routerLifetime = 3 * AdvertiseInterval

// AdvertiseInterval is how often Advertise is due for each VM's port, in seconds.
const AdvertiseInterval = 600

// routerDiscovery is a bridge's part in it: solicitations are answered in the name of the routers on the bridge, and a
// VM that plays the router is not heard. True when the packet is taken.
func (c *Context) routerDiscovery(br link, in *view.Port, b *branch) bool {
	if !has6(br) {
		return false
	}
	k := c.read(match.SrcPort | match.Frag)
	typ := uint8(k.SrcPort >> 8)
	switch {
	case k.Frag == match.FragLater:
		return false
	case typ == packet.ICMPv6RouterAdv:
		c.drop(b, ResultDrop, drop.RASpoofed)
		return true
	case typ != packet.ICMPv6RouterSol || k.Frag != match.FragNone:
		return false
	}
	c.UserSpace = true // hop limit and options are not in the key
	v := c.arrived(b)
	if !v.RouterSolicitation() {
		c.drop(b, ResultDrop, drop.BadHeader)
		return true
	}
	ports := advertisers(c.Topo, br)
	for _, p := range ports {
		if frame, ok := c.frame(); ok {
			eth := packet.Ether{Dst: b.ethSrc, Src: p.MAC, VLAN: k.VLAN}
			frame = packet.BuildRouterAdvert(frame, eth, match.AddrFrom(p.LinkLocal), v.Key.Src, advert(br, p))
			c.generate(in, frame, b, "bridge", br.Name, "router advertisement")
		}
	}
	if len(ports) == 0 {
		return false // somebody behind the bridge may answer
	}
	c.consume(b, "bridge", br.Name)
	return true
}

func has6(br link) bool {
	for s := range br.subnets() {
		if s.Prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

// advertisers are the router ports on the bridge that are gateways of advertised subnets, each once. A gateway
// that is no router port, or one that is down, advertises nothing.
func advertisers(t Topology, br link) (ports []*view.Port) {
	for s := range br.subnets() {
		if !s.RA {
			continue
		}
		mac := br.Neighbours[view.LinkAddr{Addr: match.AddrFrom(s.Gateway), VLAN: br.vlan}]
		at := t.Port(br.MACs[view.LinkMAC{MAC: mac, VLAN: br.vlan}])
		if at == nil || !at.AdminUp {
			continue
		}
		p := t.Port(at.Peer)
		if p == nil || !p.AdminUp || p.Router == uuid.Nil || slices.Contains(ports, p) {
			continue
		}
		if r := t.Router(p.Router); r != nil && r.AdminUp {
			ports = append(ports, p)
		}
	}
	return ports
}

// maxAdvertised bounds the prefixes, and the resolvers, of one advertisement, so that it fits into a packet.
const maxAdvertised = 16

// advert is what the router port says about all the subnets whose gateway it is.
func advert(br link, p *view.Port) packet.RouterAdvert {
	a := packet.RouterAdvert{MAC: p.MAC, Lifetime: routerLifetime}
	for s := range br.subnets() {
		if !s.RA || !p.Owns(s.Gateway) || len(a.Prefixes) == maxAdvertised {
			continue
		}
		a.Managed, a.Other = a.Managed || s.Managed, a.Other || s.Other
		if s.MTU > 0 && (a.MTU == 0 || uint32(s.MTU) < a.MTU) {
			a.MTU = uint32(s.MTU)
		}
		a.Prefixes = append(a.Prefixes, packet.AdvertPrefix{
			Prefix: match.AddrFrom(s.Prefix.Addr()), Bits: uint8(s.Prefix.Bits()), Auto: s.Auto, Lifetime: max(s.Lease, routerLifetime)})
		for _, d := range s.DNS {
			if x := match.AddrFrom(d); len(a.DNS) < maxAdvertised && !slices.Contains(a.DNS, x) {
				a.DNS = append(a.DNS, x)
			}
		}
		if s.Domain != "" && len(a.Domains) == 0 {
			a.Domains, _ = dhcp.AppendDomain(nil, s.Domain)
		}
	}
	a.DNSLifetime = routerLifetime
	return a
}

// Advertise gives the unsolicited advertisements that are due at a VM's port, as frames that start at its
// egress: without them hosts would forget their default router (RFC 4861 section 6.2.4).
func Advertise(t Topology, port *view.Port) (frames [][]byte) {
	br := t.Bridge(port.Bridge)
	if br == nil || !br.AdminUp || !port.AdminUp || !port.Exterior() {
		return nil
	}
	vlans := []uint16{port.VLAN}
	for i := range br.Subnets {
		if v := br.Subnets[i].VLAN; port.VLAN == 0 && !slices.Contains(vlans, v) { // a trunk
			vlans = append(vlans, v)
		}
	}
	for _, vlan := range vlans {
		eth, on := packet.Ether{}, link{br, vlan}
		if port.VLAN == 0 && vlan != 0 {
			eth.VLAN = match.VLANPresent | vlan
		}
		for _, p := range advertisers(t, on) {
			eth.Src = p.MAC
			frames = append(frames, packet.BuildRouterAdvert(nil, eth, match.AddrFrom(p.LinkLocal), match.Addr{}, advert(on, p)))
		}
	}
	return frames
}
