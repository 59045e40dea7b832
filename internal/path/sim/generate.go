package sim

import (
	"encoding/binary"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// frame lends the memory for one more generated packet; false when one packet has
// caused enough of them.
func (c *Context) frame() ([]byte, bool) {
	n := len(c.Generated)
	if n == MaxGenerated {
		return nil, false
	}
	return c.scratch.frames[n][:0], true
}

// generate queues what was built in the memory that frame lent; it will start at
// the egress of p. An empty frame is none.
func (c *Context) generate(p *view.Port, frame []byte, b *branch, device, name, what string) {
	n := len(c.Generated)
	c.scratch.frames[n] = frame
	if len(frame) == 0 {
		return
	}
	c.Generated = append(c.Generated, Generated{Port: p.ID, Frame: frame})
	if b.node != nil {
		b.node.Add("sim", device+" "+name, "generate %s out of port %s", what, p.Name)
	}
}

// arrived is the packet as it came to the device at hand, with what devices on the way have written. Its
// frame has that only when addresses or ports were written: of Ethernet the key is enough.
func (c *Context) arrived(b *branch) packet.View {
	v := c.Packet
	const translated = match.Src | match.Dst | match.SrcPort | match.DstPort
	if b.written&translated != 0 {
		v = c.rewritten(b)
	}
	v.Key.EthSrc, v.Key.EthDst, v.Key.VLAN = b.ethSrc, b.ethDst, b.at.vlan // answers leave by where it came in
	return v
}

// rewritten is the packet with the branch's addresses and ports, in memory of its own.
func (c *Context) rewritten(b *branch) packet.View {
	s, v := &c.scratch, c.Packet
	as := s.rewrites[:0]
	if b.written&match.Src != 0 {
		as = append(as, action.Action{Op: action.SetSrc, Addr: b.src})
	}
	if b.written&match.Dst != 0 {
		as = append(as, action.Action{Op: action.SetDst, Addr: b.dst})
	}
	if b.written&match.SrcPort != 0 {
		as = append(as, action.Action{Op: action.SetSrcPort, Value: b.srcPort})
	}
	if b.written&match.DstPort != 0 {
		as = append(as, action.Action{Op: action.SetDstPort, Value: b.dstPort})
	}
	s.rewrites = as
	s.arrived = append(s.arrived[:0], v.Frame...)
	// A frame that cannot be rewritten is quoted as far as that went.
	_ = s.rewriter.Apply(s.arrived, c.GSO, as)
	v.Frame = s.arrived
	v.Key.Src, v.Key.Dst, v.Key.SrcPort, v.Key.DstPort = b.src, b.dst, b.srcPort, b.dstPort
	return v
}

// Solicit appends to dst the frame with which a router port asks for the MAC of addr: an
// ARP request or a neighbour solicitation. It starts at the port's egress. Appends nothing
// when the port has no address of the family to ask from.
func Solicit(dst []byte, p *view.Port, addr match.Addr) []byte {
	own, ok := ownAddr(p, addr)
	switch {
	case !ok:
		return dst
	case addr.Is4():
		return packet.BuildARPRequest(dst, p.MAC, own, addr)
	}
	return packet.BuildNeighbourSolicitation(dst, p.MAC, own, addr)
}

// ownAddr is the address with which a router port speaks to one of the given family: the one
// on the same subnet, else its first, else (IPv6) the link-local one.
func ownAddr(p *view.Port, to match.Addr) (own match.Addr, ok bool) {
	a := to.Netip()
	for _, x := range p.Addrs {
		if x.Addr().Is4() != a.Is4() {
			continue
		}
		if x.Contains(a) {
			return match.AddrFrom(x.Addr()), true
		}
		if !ok {
			own, ok = match.AddrFrom(x.Addr()), true
		}
	}
	if !a.Is4() && p.LinkLocal.IsValid() && (!ok || a.IsLinkLocalUnicast()) {
		return match.AddrFrom(p.LinkLocal), true
	}
	return own, ok
}

// onLink reports whether addr is in a subnet of the router port, without being one of its own
// addresses.
func onLink(p *view.Port, addr match.Addr) bool {
	a := addr.Netip()
	if p.Owns(a) {
		return false
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	for _, x := range p.Addrs {
		if x.Contains(a) {
			return true
		}
	}
	return false
}

// isBroadcast reports whether addr is the IPv4 broadcast address of one of the port's
// subnets. Those of 31 and 32 bits have none (RFC 3021).
func isBroadcast(p *view.Port, addr match.Addr) bool {
	if !addr.Is4() {
		return false
	}
	a := binary.BigEndian.Uint32(addr[12:])
	for _, x := range p.Addrs {
		host := uint32(1)<<(32-min(x.Bits(), 32)) - 1
		if x.Addr().Is4() && x.Bits() < 31 && x.Contains(addr.Netip()) && a&host == host {
			return true
		}
	}
	return false
}
