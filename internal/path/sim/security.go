package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// What only a DHCP server sends to (RFC 2131 section 4.1, RFC 8415 section 7.2), and what a client sends from.
const (
	dhcpServer, dhcpClient    = 67, 68
	dhcpv6Client              = 546
	icmpv6Redirect            = 137
	mldReport, mldDone, mldv2 = 131, 132, 143
)

// spoofed holds what comes from a VM against the addresses that its port may send from; None when
// it may pass. It stands before everything else, so that nothing is learnt from a lie.
func (c *Context) spoofed(p *view.Port, b *branch) drop.Reason {
	if p.Sources == nil || !p.Exterior() {
		return drop.None
	}
	mac := c.readSrc(b)
	if !mayUse(p, mac, nil) {
		return drop.SpoofedMAC
	}
	switch c.read(match.EthType).EthType {
	case packet.EthTypeARP:
		return c.spoofedARP(p, mac)
	case packet.EthTypeIPv4:
		return c.spoofedIPv4(p, mac, b)
	case packet.EthTypeIPv6:
		return c.spoofedIPv6(p, mac, b)
	}
	return drop.SpoofedType
}

// mayUse reports whether the port may send from mac, and from a with it; nil: from any address.
func mayUse(p *view.Port, mac match.MAC, a *match.Addr) bool {
	for i := range p.Sources {
		if s := &p.Sources[i]; s.MAC == mac && (a == nil || s.Has(a)) {
			return true
		}
	}
	return false
}

// spoofedARP lets probes pass, which claim nothing (RFC 5227 section 2.1.1). The sender's hardware address is not in
// the key: each ARP packet has to be looked at.
func (c *Context) spoofedARP(p *view.Port, mac match.MAC) drop.Reason {
	src := &c.read(match.Src).Src
	if !unspecified4(src) && !mayUse(p, mac, src) {
		return drop.SpoofedARP
	}
	c.UserSpace = true
	if a, ok := c.Packet.ARP(); !ok || a.SHA != mac {
		return drop.SpoofedARP
	}
	return drop.None
}

func (c *Context) spoofedIPv4(p *view.Port, mac match.MAC, b *branch) drop.Reason {
	src := c.readSrcAddr(b)
	own := mayUse(p, mac, src)
	if !own && !unspecified4(src) {
		return drop.SpoofedIP
	}
	if c.read(match.Proto).Proto == packet.ProtoUDP && c.read(match.Frag).Frag != match.FragLater {
		switch dst := c.readDHCPPort(b); {
		case dst == dhcpClient:
			return drop.SpoofedDHCP
		case !own && dst == dhcpServer && c.readSrcPort(b) == dhcpClient:
			return drop.None // a client that has no address yet
		}
	}
	if !own {
		return drop.SpoofedIP
	}
	return drop.None
}

func (c *Context) spoofedIPv6(p *view.Port, mac match.MAC, b *branch) drop.Reason {
	src := c.readSrcAddr(b)
	own := mayUse(p, mac, src)
	if !own && *src != (match.Addr{}) {
		return drop.SpoofedIP
	}
	switch proto := c.read(match.Proto).Proto; {
	case proto != packet.ProtoICMPv6 && proto != packet.ProtoUDP, c.read(match.Frag).Frag == match.FragLater:
	case proto == packet.ProtoUDP:
		if c.readDHCPPort(b) == dhcpv6Client {
			return drop.SpoofedDHCP
		}
	default:
		switch c.readSrcPort(b) >> 8 {
		case uint16(packet.ICMPv6RouterAdv), icmpv6Redirect:
			return drop.SpoofedRA
		case uint16(packet.ICMPv6NeighbourSol), uint16(packet.ICMPv6NeighbourAdv):
			return c.spoofedND(p, mac)
		case uint16(packet.ICMPv6RouterSol), mldReport, mldDone, mldv2:
			return drop.None // asked without an address too (RFC 4861 section 4.1, RFC 3590)
		}
	}
	if !own {
		return drop.SpoofedIP
	}
	return drop.None
}

// spoofedND looks into the body, which is not in the key: an advertisement speaks for its target, and whatever
// link-layer address is given must be one for it. A solicitation without a source is a question about its own (RFC 4862).
func (c *Context) spoofedND(p *view.Port, mac match.MAC) drop.Reason {
	c.UserSpace = true
	n, ok := c.Packet.ND()
	switch {
	case !ok, n.HasLLA && n.LLA != mac, n.Advert && !mayUse(p, mac, &n.Target):
		return drop.SpoofedND
	}
	return drop.None
}

// unspecified4 reports 0.0.0.0.
func unspecified4(a *match.Addr) bool { return a.Is4() && *(*[4]byte)(a[12:]) == [4]byte{} }
