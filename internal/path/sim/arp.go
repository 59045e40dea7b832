package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// isND reports a neighbour solicitation or advertisement by its key. Only what the body
// holds beyond that needs user space.
func (c *Context) isND() bool {
	k := c.read(match.EthType)
	if k.EthType != packet.EthTypeIPv6 || c.read(match.Proto).Proto != packet.ProtoICMPv6 {
		return false
	}
	typ := uint8(c.read(match.SrcPort|match.Frag).SrcPort >> 8)
	return k.Frag == match.FragNone && (typ == packet.ICMPv6NeighbourSol || typ == packet.ICMPv6NeighbourAdv)
}

// answer is the bridge's part in ARP and neighbour discovery: it answers for addresses that it
// knows, and learns from announcements. True when the packet is consumed.
func (c *Context) answer(br *view.Bridge, in *view.Port, b *branch) bool {
	if c.read(match.EthType).EthType == packet.EthTypeARP {
		return c.answerARP(br, in, b)
	}
	return c.isND() && c.answerND(br, in, b)
}

func (c *Context) answerARP(br *view.Bridge, in *view.Port, b *branch) bool {
	k := c.read(match.Proto | match.Src | match.Dst)
	if k.Src == k.Dst { // an announcement, as request or as reply (RFC 5227 section 3)
		if a, ok := c.Packet.ARP(); ok {
			c.UserSpace = true
			c.learnOnBridge(br, a.SPA, a.SHA, b)
		}
		return false
	}
	if uint16(k.Proto) != packet.ARPRequest {
		return false
	}
	mac, ok := c.linkMAC(br, k.Dst, b.vlan&vidMask)
	// Whoever asks for its own address tests whether somebody else has it (RFC 5227
	// section 2.1): the bridge must not say yes on its behalf.
	if !ok || mac == c.readSrc(b) {
		return false
	}
	if b.node != nil {
		b.node.Add("sim", "bridge "+br.Name, "ARP table finds %s at %s", k.Dst, mac)
	}
	if frame, ok := c.frame(); ok {
		v := c.arrived(b)
		c.generate(in, packet.BuildARPReply(frame, &v, mac), b, "bridge", br.Name, "ARP reply")
	}
	c.consume(b, "bridge", br.Name)
	return true
}

func (c *Context) answerND(br *view.Bridge, in *view.Port, b *branch) bool {
	k := c.read(match.Src)
	typ := uint8(k.SrcPort >> 8)
	if typ == packet.ICMPv6NeighbourAdv && !c.readDst(b).IsMulticast() {
		return false // an answer on its way to who asked
	}
	c.UserSpace = true // target and options are not in the key
	v := c.arrived(b)
	n, ok := v.ND()
	switch {
	case !ok:
		return false
	case n.Advert:
		if !n.HasLLA {
			n.LLA = b.ethSrc
		}
		c.learnOnBridge(br, n.Target, n.LLA, b)
		return false
	}
	mac, ok := c.linkMAC(br, n.Target, b.vlan&vidMask)
	if !ok || mac == b.ethSrc { // the same for duplicate address detection (RFC 4862 section 5.4)
		return false
	}
	if b.node != nil {
		b.node.Add("sim", "bridge "+br.Name, "ND table finds %s at %s", n.Target, mac)
	}
	flags := packet.NDOverride
	if c.isRouter(br, mac, b.vlan&vidMask) {
		flags |= packet.NDRouter // without it a host forgets its default router (RFC 4861 section 7.3.3)
	}
	if frame, ok := c.frame(); ok {
		c.generate(in, packet.BuildNeighbourAdvertisement(frame, &v, mac, flags), b, "bridge", br.Name, "neighbour advertisement")
	}
	c.consume(b, "bridge", br.Name)
	return true
}

// learnOnBridge registers an announced address in the VLAN of the frame. A seeded one cannot be taken over.
func (c *Context) learnOnBridge(br *view.Bridge, addr match.Addr, mac match.MAC, b *branch) {
	vlan := b.vlan & vidMask
	if _, seeded := br.Neighbours[view.LinkAddr{Addr: addr, VLAN: vlan}]; seeded || mac.IsMulticast() || !isHost(addr) {
		return
	}
	if b.node != nil {
		b.node.Add("sim", "bridge "+br.Name, "learn %s at %s", addr, mac)
	}
	c.Learn = append(c.Learn, Learn{Kind: LearnBridgeNeighbour, VLAN: vlan, Device: br.ID, Port: c.payer(br.ID), Addr: addr, MAC: mac})
}

// routerARP takes ARP that reached a router port (RFC 826).
func (c *Context) routerARP(r *view.Router, in *view.Port, b branch) {
	k := c.read(match.Proto | match.Src | match.Dst)
	op := uint16(k.Proto)
	ours := in.Owns(k.Dst.Netip())
	probe := k.Src.Is4() && k.Src.Netip().IsUnspecified() // RFC 5227 section 2.1.1
	known := onLink(in, k.Src)
	request := op == packet.ARPRequest && ours && (known || probe)
	announce := (op == packet.ARPRequest || op == packet.ARPReply) && k.Src == k.Dst && known
	reply := op == packet.ARPReply && ours && known
	if !request && !announce && !reply {
		c.drop(&b, ResultDrop, drop.ArpIgnored)
		return
	}
	v := c.arrived(&b)
	a, _ := v.ARP()
	if a.SHA.IsMulticast() {
		c.UserSpace = true
		c.drop(&b, ResultDrop, drop.ArpIgnored)
		return
	}
	if known {
		c.learnNeighbour(r, in, a.SPA, a.SHA, &b)
	}
	if request {
		if frame, ok := c.frame(); ok {
			c.generate(in, packet.BuildARPReply(frame, &v, in.MAC), &b, "router", r.Name, "ARP reply")
		}
	}
	c.consume(&b, "router", r.Name)
}

// routerND takes a neighbour solicitation or advertisement that reached a router port (RFC 4861
// section 7.2).
func (c *Context) routerND(r *view.Router, in *view.Port, b branch) {
	c.UserSpace = true // hop limit, target and options are not in the key
	v := c.arrived(&b)
	n, ok := v.ND()
	if n.Advert && !n.HasLLA {
		n.LLA, n.HasLLA = b.ethSrc, true
	}
	asker := v.Key.Src
	if n.Advert {
		asker = n.Target
	}
	asked := !n.Advert && in.Owns(n.Target.Netip())
	known := onLink(in, asker) && isHost(asker)
	if !ok || !asked && !(n.Advert && known) || n.HasLLA && n.LLA.IsMulticast() {
		c.drop(&b, ResultDrop, drop.ArpIgnored)
		return
	}
	if known && n.HasLLA {
		c.learnNeighbour(r, in, asker, n.LLA, &b)
	}
	if asked {
		if frame, ok := c.frame(); ok {
			frame = packet.BuildNeighbourAdvertisement(frame, &v, in.MAC, packet.NDRouter|packet.NDOverride)
			c.generate(in, frame, &b, "router", r.Name, "neighbour advertisement")
		}
	}
	c.consume(&b, "router", r.Name)
}

func (c *Context) learnNeighbour(r *view.Router, in *view.Port, addr match.Addr, mac match.MAC, b *branch) {
	if b.node != nil {
		b.node.Add("sim", "router "+r.Name, "learn %s at %s on port %s", addr, mac, in.Name)
	}
	c.Learn = append(c.Learn, Learn{Kind: LearnNeighbour, Device: in.ID, Port: c.payer(in.ID), Addr: addr, MAC: mac})
}
