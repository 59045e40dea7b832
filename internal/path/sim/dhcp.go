package sim

import (
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/dhcp/dhcp4"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// host is a bridge's part in how a host comes by its addresses: on a bridge with subnets it answers DHCP
// clients itself, and nobody else may. True when the packet is taken.
//
// UDP that enters such a bridge is told apart by its destination port; nothing else is read of what is no DHCP.
func (c *Context) host(br *view.Bridge, in *view.Port, b *branch) bool {
	k := c.read(match.EthType)
	if k.EthType != packet.EthTypeIPv4 && k.EthType != packet.EthTypeIPv6 {
		return false
	}
	six := k.EthType == packet.EthTypeIPv6
	if c.read(match.Proto).Proto != packet.ProtoUDP || !serves(br, six) || c.read(match.Frag).Frag == match.FragLater {
		return false
	}
	switch port := c.read(match.DstPort).DstPort; {
	case !six && port == dhcp4.ClientPort:
		c.drop(b, ResultDrop, drop.DHCPSpoofed)
		return true
	case !six && port == dhcp4.ServerPort:
		return c.dhcp4(br, in, b)
	}
	return false
}

// serves reports whether DHCP of a family is the bridge's own.
func serves(br *view.Bridge, six bool) bool {
	for i := range br.Subnets {
		if s := &br.Subnets[i]; s.DHCP && s.Prefix.Addr().Is6() == six {
			return true
		}
	}
	return false
}

// fixed is the first address of a VM's port that a subnet with DHCP holds; s is nil when there is none.
func fixed(br *view.Bridge, in *view.Port, six bool) (s *view.Subnet, a netip.Addr) {
	for _, p := range in.Addrs {
		for i := range br.Subnets {
			s := &br.Subnets[i]
			if s.DHCP && p.Addr().Is6() == six && s.Prefix.Contains(p.Addr()) {
				return s, p.Addr()
			}
		}
	}
	return nil, a
}

// dhcp4 takes a message to a DHCP server. One for a server elsewhere goes its way.
func (c *Context) dhcp4(br *view.Bridge, in *view.Port, b *branch) bool {
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
	var o dhcp.Outcome
	if c.Packet.Key.Frag == match.FragNone {
		o = dhcp4.Answer(&s.Subnet, server, dhcp.Client{MAC: in.MAC, Addr: addr}, c.Packet.Payload())
	} else {
		o = dhcp.Outcome{Verdict: dhcp.Malformed, Reply: "a fragment"}
	}
	if frame, ok := c.reply(br, s, &o, b); ok {
		eth := packet.Ether{Dst: b.ethSrc, Src: c.serverMAC(br, server), VLAN: c.Packet.Key.VLAN}
		ip := packet.IP{Src: match.AddrFrom(server), Dst: match.AddrFrom(o.To), TTL: 64}
		if !o.To.IsValid() {
			eth.Dst, ip.Dst = match.Broadcast, match.AddrFrom(broadcast4)
		}
		frame = packet.BuildUDP(frame, eth, ip, dhcp4.ServerPort, dhcp4.ClientPort, o.Payload)
		c.generate(in, frame, b, "bridge", br.Name, o.Reply)
	}
	return true
}

// reply ends the branch as the outcome says, and lends the memory for the reply when there is one.
func (c *Context) reply(br *view.Bridge, s *view.Subnet, o *dhcp.Outcome, b *branch) ([]byte, bool) {
	if b.node != nil {
		b.node.Add("sim", "subnet "+s.Name, "DHCP %s: %s", o.Request, o.Reply)
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
func (c *Context) serverMAC(br *view.Bridge, server netip.Addr) match.MAC {
	if mac, ok := c.linkMAC(br, match.AddrFrom(server)); ok {
		return mac
	}
	return dhcp.ServerMAC
}
