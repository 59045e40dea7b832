package sim

import (
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// router takes a frame that reached one of a router's ports, as RFC 1812 section 5.2.1 orders
// it: link layer, header, filter, route, TTL, filter, next hop.
func (c *Context) router(r *view.Router, in *view.Port, b branch) {
	if !c.enter(r.ID, &b) {
		return
	}
	dst := c.readDst(&b)
	ethType := c.read(match.EthType).EthType
	group := dst.IsMulticast()
	switch {
	case !group && dst != in.MAC:
		c.drop(&b, ResultDrop, drop.NotForUs)
	case c.readVLAN(&b) != 0:
		c.drop(&b, ResultDrop, drop.Tagged)
	case !r.AdminUp:
		c.icmpError(in, &b, prohibited, 0)
		c.drop(&b, ResultDrop, drop.AdminDown)
	case ethType == packet.EthTypeARP:
		c.routerARP(r, in, b)
	case ethType != packet.EthTypeIPv4 && ethType != packet.EthTypeIPv6:
		c.drop(&b, ResultDrop, drop.NotIP)
	case c.isND():
		c.routerND(r, in, b)
	case group:
		c.drop(&b, ResultDrop, drop.NotForUs)
	default:
		c.route(r, in, b)
	}
}

// route decides what a router does with an IP packet that was sent to it.
func (c *Context) route(r *view.Router, in *view.Port, b branch) {
	from, to := c.readIPs(&b)
	if !c.isIP(&b) || !isHost(from) {
		c.drop(&b, ResultDrop, drop.BadHeader)
		return
	}
	if c.answersCheck(r, in, &b) {
		return
	}
	at := place{"pre-routing filter", "router", r.Name, r.ID, r.Rules, nil}
	c.copies(r.Mirrors, view.InBeforeFilters, &at, &b)
	if !in.Health && !c.filter(r.Pre, at, &b) {
		return
	}
	c.copies(r.Mirrors, view.InAfterFilters, &at, &b)
	o := c.natIn(r, &b)
	switch c.balance(r, in, &b) {
	case natEnded:
		return
	case natApplied:
		o.balanced, o.client = true, b.src
	}
	from, to = c.readIPs(&b)
	src, dst := from.Netip(), to.Netip()
	if _, vip := r.VIPs[to]; vip || in.Owns(dst) { // link-local addresses are in no table
		c.local(r, in, b)
		return
	}
	// Neither groups nor link-local IPv6 addresses are routed (RFC 4291 section 2.5.6).
	if !isHost(to) || dst.Is6() && (dst.IsLinkLocalUnicast() || src.IsLinkLocalUnicast()) {
		c.drop(&b, ResultDrop, drop.NoRoute)
		return
	}
	c.depend(tag.Tag{Kind: tag.Route, ID: r.ID, Addr: to})
	rt, ok := r.Table.Lookup(dst, src, pairHash(&from, &to))
	if !ok {
		c.icmpError(in, &b, netUnreachable, 0)
		c.drop(&b, ResultErrorDrop, drop.NoRoute)
		return
	}
	if b.node != nil {
		from := ""
		if rt.Src.Bits() > 0 {
			from = " from " + rt.Src.String()
		}
		b.node.Add("sim", "router "+r.Name, "route %s%s matched: %s", rt.Dst, from, rt.NextHop)
	}
	switch rt.NextHop {
	case view.ToLocal:
		c.local(r, in, b)
	case view.Blackhole:
		c.drop(&b, ResultDrop, drop.Blackhole)
	case view.Reject:
		c.icmpError(in, &b, prohibited, 0)
		c.drop(&b, ResultErrorDrop, drop.Prohibited)
	default:
		c.forward(r, rt, in, o, b)
	}
}

// forward sends a packet on along a route. Out of the port it came in by is allowed.
func (c *Context) forward(r *view.Router, rt *view.Route, in *view.Port, o outside, b branch) {
	// The TTL is not in the key. One that suffices needs no check here: a flow's
	// DecTTL makes the others miss. One that does not must not end later packets.
	if int(c.Packet.TTL)-int(b.decs) <= 1 {
		c.UserSpace = true
		c.icmpError(in, &b, timeExceeded, 0)
		c.drop(&b, ResultErrorDrop, drop.TTLExpired)
		return
	}
	out := c.port(rt.Port, &b)
	if out == nil {
		return
	}
	if !out.AdminUp {
		c.icmpError(in, &b, prohibited, 0)
		c.drop(&b, ResultDrop, drop.AdminDown)
		return
	}
	if isBroadcast(out, b.dst) { // RFC 2644: not by default
		c.drop(&b, ResultDrop, drop.NoRoute)
		return
	}
	// Nor is the length: this drop must not end shorter packets, and a flow's CheckLen makes longer
	// ones miss. Nothing fragments here, so DF does not matter.
	if out.MTU > 0 && c.Packet.WireLen(c.GSO) > out.MTU {
		c.UserSpace = true
		c.icmpError(in, &b, tooBig, out.MTU)
		c.drop(&b, ResultErrorDrop, drop.ExceedsMTU)
		return
	}
	c.keepsTo(out.MTU)
	c.unbalance(r, &b)
	at := place{"post-routing filter", "router", r.Name, r.ID, r.Rules, out}
	c.copies(r.Mirrors, view.OutBeforeFilters, &at, &b)
	if !in.Health && !c.filter(r.Post, at, &b) {
		return
	}
	c.restore(r.Rules, r.ID, translatedSrc, &b)
	hop := b.dst
	if rt.Gateway.IsValid() {
		hop = match.AddrFrom(rt.Gateway)
	}
	mac, ok := c.neighbour(out, in, hop, &b)
	if !ok || !c.translateOut(r, in, out, o, &b) {
		return
	}
	if b.node != nil {
		b.node.Add("sim", "router "+r.Name, "next hop %s is at %s, out of port %s; TTL %d to %d",
			hop, mac, out.Name, c.Packet.TTL-b.decs, c.Packet.TTL-b.decs-1)
	}
	b.ethSrc, b.ethDst = out.MAC, mac
	b.written |= match.EthSrc | match.EthDst
	b.decs++
	c.copies(r.Mirrors, view.OutAfterFilters, &at, &b)
	c.egress(out, b)
}

// neighbour finds the MAC of the next hop. False ends the branch, or the
// simulation when the neighbour has yet to be asked.
func (c *Context) neighbour(out, in *view.Port, hop match.Addr, b *branch) (match.MAC, bool) {
	if mac, ok := c.atPeer(out, hop); ok {
		return mac, true
	}
	c.depend(tag.Tag{Kind: tag.Neighbour, ID: out.ID, Addr: hop})
	mac, ok, failed := c.State.Neighbour(out.ID, hop)
	switch {
	case ok:
		return mac, true
	case failed:
		c.icmpError(in, b, hostUnreachable, 0)
		c.drop(b, ResultErrorDrop, drop.NoNeighbour)
	default:
		if b.node != nil {
			b.node.Add("sim", "port "+out.Name, "not yet: the MAC of %s is not known", hop)
		}
		c.wait(tag.Tag{Kind: tag.Neighbour, ID: out.ID, Addr: hop})
	}
	return mac, false
}

// atPeer finds what needs no asking: the addresses of a router at the other end of the link, and
// those that a bridge there was seeded with or has learnt.
func (c *Context) atPeer(out *view.Port, hop match.Addr) (mac match.MAC, ok bool) {
	if out.Peer == uuid.Nil {
		return mac, false
	}
	c.depend(tag.Tag{Kind: tag.Port, ID: out.Peer})
	peer := c.topoPort(out.Peer)
	switch {
	case peer == nil:
	case peer.Router != uuid.Nil:
		c.depend(tag.Tag{Kind: tag.Floating, ID: peer.ID, Addr: hop})
		if peer.Owns(hop.Netip()) {
			return peer.MAC, true
		}
	default:
		if br := c.topoBridge(peer.Bridge); br != nil {
			c.depend(tag.Tag{Kind: tag.Device, ID: br.ID})
			return c.linkMAC(br, hop, peer.VLAN)
		}
	}
	return mac, false
}

// pairHash spreads over equal routes. It is symmetric, and of the addresses alone:
// fragments, which have no ports, keep to the path of their packet, and flows need not tell
// ports apart.
func pairHash(src, dst *match.Addr) uint32 {
	h := addrHash(src) + addrHash(dst)
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return uint32(h >> 32)
}

func addrHash(a *match.Addr) uint64 {
	h := binary.BigEndian.Uint64(a[:8])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(a[8:])
	h ^= h >> 32
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
