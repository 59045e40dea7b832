package sim

import (
	"iter"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/dhcp/dhcp4"
	"github.com/viaduct-net/viaduct/internal/base/dhcp/dhcp6"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// served hands the packet to the subnets of the port's bridge, before any filter: who may not speak yet may ask for an
// address. True when it is taken.
func (c *Context) served(p *view.Port, b *branch) bool {
	if p.Bridge == uuid.Nil || !p.Exterior() {
		return false
	}
	c.depend(tag.Tag{Kind: tag.Device, ID: p.Bridge})
	br := c.topoBridge(p.Bridge)
	if br == nil || !br.AdminUp || len(br.Subnets) == 0 {
		return false
	}
	vlan := c.readVLAN(b) & vidMask
	switch {
	case p.VLAN != 0 && vlan != 0:
		return false // at an access port: the bridge will say
	case p.VLAN != 0:
		vlan = p.VLAN
	}
	if !c.host(link{br, vlan}, p, b) {
		return false
	}
	if src := c.readSrc(b); !src.IsMulticast() {
		c.learnMAC(br, p, src, vlan, b)
	}
	return true
}

// link is a VLAN of a bridge; 0: that of frames without a tag. Hosts there see its subnets alone.
type link struct {
	*view.Bridge
	vlan uint16
}

// subnets are those of the link.
func (l link) subnets() iter.Seq[*view.Subnet] {
	return func(yield func(*view.Subnet) bool) {
		for i := range l.Subnets {
			if s := &l.Subnets[i]; s.VLAN == l.vlan && !yield(s) {
				return
			}
		}
	}
}

// host is a bridge's part in how a host comes by its addresses: on a bridge with subnets it answers DHCP
// clients itself, and nobody else may. True when the packet is taken.
//
// UDP that enters such a bridge is told apart by whether it goes to a port of DHCP's; nothing else is read of what is no DHCP.
func (c *Context) host(br link, in *view.Port, b *branch) bool {
	k := c.read(match.EthType)
	if k.EthType != packet.EthTypeIPv4 && k.EthType != packet.EthTypeIPv6 {
		return false
	}
	six := k.EthType == packet.EthTypeIPv6
	switch c.read(match.Proto).Proto {
	case packet.ProtoICMPv6:
		return six && c.routerDiscovery(br, in, b)
	case packet.ProtoUDP:
		if !serves(br, six) || c.read(match.Frag).Frag == match.FragLater {
			return false
		}
	default:
		return false
	}
	switch port := c.readDHCPPort(b); {
	case !six && port == dhcp4.ClientPort, six && port == dhcp6.ClientPort: // what only a server sends
		c.drop(b, ResultDrop, drop.DHCPSpoofed)
		return true
	case !six && port == dhcp4.ServerPort:
		return c.dhcp4(br, in, b)
	case six && port == dhcp6.ServerPort:
		return c.dhcp6(br, in, b)
	}
	return false
}

// serves reports whether telling hosts of a family their addresses is the bridge's own.
func serves(br link, six bool) bool {
	for s := range br.subnets() {
		if (s.DHCP || s.RA) && s.Prefix.Addr().Is6() == six {
			return true
		}
	}
	return false
}

// fixed is the first address of a VM's port that a subnet with DHCP holds; s is nil when there is none.
func fixed(br link, in *view.Port, six bool) (s *view.Subnet, a netip.Addr) {
	for _, p := range in.Addrs {
		for s := range br.subnets() {
			if s.DHCP && p.Addr().Is6() == six && s.Prefix.Contains(p.Addr()) {
				return s, p.Addr()
			}
		}
	}
	return nil, a
}

// dhcp4 takes a message to a DHCP server. One for a server elsewhere goes its way.
func (c *Context) dhcp4(br link, in *view.Port, b *branch) bool {
	s, addr := fixed(br, in, false)
	server := serverAddr(s)
	to := c.read(match.Dst).Dst.Netip()
	if s != nil && to != server && to != broadcast4 || s == nil && !c.readDst(b).IsMulticast() {
		return false
	}
	c.UserSpace = true // the message is not in the key
	if s == nil || c.readSrc(b) != in.MAC {
		c.drop(b, ResultDrop, drop.DHCPIgnored)
		return true
	}
	o := dhcp.Outcome{Verdict: dhcp.Malformed, Reply: "a fragment"}
	if c.Packet.Key.Frag == match.FragNone {
		o = dhcp4.Answer(&s.Subnet, server, dhcp.Client{MAC: in.MAC, Addr: addr}, c.Packet.Payload())
	}
	if frame, ok := c.reply(br.Bridge, s, &o, b); ok {
		eth := packet.Ether{Dst: b.ethSrc, Src: c.serverMAC(br, server), VLAN: b.at.vlan}
		ip := packet.IP{Src: match.AddrFrom(server), Dst: match.AddrFrom(o.To), TTL: 64}
		if !o.To.IsValid() {
			eth.Dst, ip.Dst = match.Broadcast, match.AddrFrom(broadcast4)
		}
		frame = packet.BuildUDP(frame, eth, ip, dhcp4.ServerPort, dhcp4.ClientPort, o.Payload)
		c.generate(in, frame, b, "bridge", br.Name, o.Reply)
	}
	return true
}

// dhcp6 takes a message to DHCPv6 servers. One to a single server goes its way: who uses it was told of it.
func (c *Context) dhcp6(br link, in *view.Port, b *branch) bool {
	if c.read(match.Dst).Dst != match.AddrFrom(dhcp6.Servers) {
		return false
	}
	c.UserSpace = true // the message is not in the key
	s, addr := fixed(br, in, true)
	if s != nil && !s.DHCPv6 {
		addr = netip.Addr{} // hosts form it themselves
	}
	for x := range br.subnets() {
		// A host whose address nobody knows can still be told the rest.
		if s == nil && x.DHCP && x.Prefix.Addr().Is6() {
			s = x
		}
	}
	k, src := &c.Packet.Key, c.readSrc(b)
	if s == nil || in.MAC != (match.MAC{}) && src != in.MAC {
		c.drop(b, ResultDrop, drop.DHCPIgnored)
		return true
	}
	o := dhcp.Outcome{Verdict: dhcp.Malformed, Reply: "a fragment, or from no link-local address"}
	if k.Frag == match.FragNone && k.Src.Netip().IsLinkLocalUnicast() {
		o = dhcp6.Answer(&s.Subnet, dhcp.Client{MAC: src, Addr: addr}, c.Packet.Payload())
	}
	if frame, ok := c.reply(br.Bridge, s, &o, b); ok {
		eth := packet.Ether{Dst: src, Src: dhcp.ServerMAC, VLAN: k.VLAN}
		ip := packet.IP{Src: dhcp.ServerLinkLocal, Dst: k.Src, TTL: 64}
		frame = packet.BuildUDP(frame, eth, ip, dhcp6.ServerPort, dhcp6.ClientPort, o.Payload)
		c.generate(in, frame, b, "bridge", br.Name, o.Reply)
	}
	return true
}

// reply ends the branch as the outcome says, and lends the memory for the reply when there is one.
func (c *Context) reply(br *view.Bridge, s *view.Subnet, o *dhcp.Outcome, b *branch) ([]byte, bool) {
	if b.node != nil {
		what := o.Request
		if what == "" {
			what = "message"
		}
		n := b.node.Add("sim", "subnet "+s.Name, "DHCP %s: %s", what, o.Reply)
		if o.Addr.IsValid() {
			n.Text += " " + o.Addr.String()
		}
	}
	switch o.Verdict {
	case dhcp.Malformed:
		c.drop(b, ResultDrop, drop.DHCPMalformed)
		return nil, false
	case dhcp.NotOurs:
		c.drop(b, ResultDrop, drop.DHCPIgnored)
		return nil, false
	}
	c.consume(b, "bridge", br.Name)
	if o.Verdict == dhcp.Taken {
		return nil, false
	}
	return c.frame()
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// serverAddr4 is where the DHCP server of subnets without a gateway says it is. Clients cannot reach it, and renew
// by broadcast when they rebind.
var serverAddr4 = netip.AddrFrom4([4]byte{169, 254, 0, 67})

// serverAddr is the server identifier of a subnet (RFC 2132 section 9.7): a client that renews
// sends to it, so it must be somebody whom ARP finds.
func serverAddr(s *view.Subnet) netip.Addr {
	if s != nil && s.Gateway.IsValid() {
		return s.Gateway
	}
	return serverAddr4
}

// serverMAC is the MAC of an address on the bridge, or that of nobody.
func (c *Context) serverMAC(br link, server netip.Addr) match.MAC {
	if mac, ok := c.linkMAC(br.Bridge, match.AddrFrom(server), br.vlan); ok {
		return mac
	}
	return dhcp.ServerMAC
}
