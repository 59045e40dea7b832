package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// icmpKind is an error in both families; a zero type 6 means that ICMPv6 has none.
type icmpKind struct {
	what         string
	type4, code4 uint8
	type6, code6 uint8
}

// What a router answers (RFC 792, RFC 1812 section 5.2.7, RFC 4443 section 3).
var (
	netUnreachable  = icmpKind{"ICMP net unreachable", packet.ICMPUnreachable, packet.ICMPCodeNet, packet.ICMPv6Unreachable, packet.ICMPv6CodeNoRoute}
	hostUnreachable = icmpKind{"ICMP host unreachable", packet.ICMPUnreachable, packet.ICMPCodeHost, packet.ICMPv6Unreachable, packet.ICMPv6CodeAddress}
	portUnreachable = icmpKind{"ICMP port unreachable", packet.ICMPUnreachable, packet.ICMPCodePort, packet.ICMPv6Unreachable, packet.ICMPv6CodePort}
	prohibited      = icmpKind{"ICMP administratively prohibited", packet.ICMPUnreachable, packet.ICMPCodeProhibited, packet.ICMPv6Unreachable, packet.ICMPv6CodeProhibit}
	timeExceeded    = icmpKind{"ICMP time exceeded", packet.ICMPTimeExceeded, 0, packet.ICMPv6TimeExceeded, 0}
	tooBig          = icmpKind{"ICMP fragmentation needed", packet.ICMPUnreachable, packet.ICMPCodeFragNeeded, packet.ICMPv6TooBig, 0}
)

// icmpError complains to the sender, out of the router port where the packet came in,
// unless RFC 1812 section 4.3.2.7 or RFC 4443 section 2.4 (e) forbid it. What is read to
// decide that is not in the mask: it does not change what becomes of the
// packet, and while the drop flow lives there are no further errors anyway.
func (c *Context) icmpError(in *view.Port, b *branch, kind icmpKind, mtu int) {
	back := *b
	back.header = b.at // as it was when it reached the router
	v := c.arrived(&back)
	if in == nil || back.ethDst != in.MAC || !v.MayCauseError() {
		return
	}
	src, ok := ownAddr(in, v.Key.Src)
	if kind == portUnreachable { // a message to the router itself is answered from where it was sent (RFC 4443 section 2.2 (a))
		src, ok = v.Key.Dst, true
	}
	if !ok {
		return
	}
	frame, ok := c.frame()
	if !ok {
		return
	}
	what, m := kind.what, packet.ICMP{Type: kind.type4, Code: kind.code4, Rest: uint32(mtu)}
	if v.Is6() {
		m.Type, m.Code = kind.type6, kind.code6
		if kind == tooBig {
			what = "ICMP packet too big"
		}
	}
	c.agreeOwn(b.proposal)
	c.generate(in, packet.BuildICMPError(frame, &v, src, m), b, "port", in.Name, what)
}

// local takes a packet for one of the router's own addresses.
func (c *Context) local(r *view.Router, in *view.Port, b branch) {
	k := c.read(match.Proto | match.Frag)
	switch k.Proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if isEcho(c.read(match.SrcPort)) {
			if frame, ok := c.frame(); ok {
				v := c.arrived(&b)
				c.generate(in, packet.BuildEchoReply(frame, &v), &b, "router", r.Name, "echo reply")
			}
			c.consume(&b, "router", r.Name)
			return
		}
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		c.icmpError(in, &b, portUnreachable, 0)
	}
	c.drop(&b, ResultErrorDrop, drop.LocalNotTaken)
}

// isEcho reports an echo request of either family that came in one piece.
func isEcho(k *match.Key) bool {
	want := uint16(packet.ICMPv6EchoRequest) << 8
	if k.EthType == packet.EthTypeIPv4 {
		want = uint16(packet.ICMPEchoRequest) << 8
	}
	return k.SrcPort == want && k.Frag == match.FragNone
}

// isIP reports whether the packet's addresses are of its own family. IPv4-mapped
// addresses must not appear on the wire (RFC 4942 section 2.2).
func (c *Context) isIP(b *branch) bool {
	is4 := c.read(match.EthType).EthType == packet.EthTypeIPv4
	return b.src.Is4() == is4 && b.dst.Is4() == is4
}

// isHost reports whether a names a single host, as a source must (RFC 1812 section 5.3.7, RFC
// 4291 section 2.5.2) and as a destination of a routed packet must.
func isHost(a match.Addr) bool {
	if a.Is4() {
		return a[12] != 0 && a[12] != 127 && a[12] < 224
	}
	return a[0] != 0xff && a != match.Addr{} && a != match.Addr{15: 1}
}
