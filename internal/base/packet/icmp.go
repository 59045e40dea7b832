package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// ICMPv4 types and codes (RFC 792, RFC 1812).
const (
	ICMPEchoReply    uint8 = 0
	ICMPUnreachable  uint8 = 3
	icmpSourceQuench uint8 = 4 // deprecated by RFC 6633
	ICMPRedirect     uint8 = 5
	ICMPEchoRequest  uint8 = 8
	ICMPTimeExceeded uint8 = 11
	ICMPParamProblem uint8 = 12

	ICMPCodeNet        uint8 = 0
	ICMPCodeHost       uint8 = 1
	ICMPCodeProto      uint8 = 2
	ICMPCodePort       uint8 = 3
	ICMPCodeFragNeeded uint8 = 4
	ICMPCodeProhibited uint8 = 13
)

// ICMPv6 types and codes (RFC 4443, RFC 4861).
const (
	ICMPv6Unreachable   uint8 = 1
	ICMPv6TooBig        uint8 = 2
	ICMPv6TimeExceeded  uint8 = 3
	ICMPv6ParamProblem  uint8 = 4
	ICMPv6EchoRequest   uint8 = 128
	ICMPv6EchoReply     uint8 = 129
	ICMPv6RouterSol     uint8 = 133
	ICMPv6RouterAdv     uint8 = 134
	ICMPv6NeighbourSol  uint8 = 135
	ICMPv6NeighbourAdv  uint8 = 136
	icmpv6Redirect      uint8 = 137
	ICMPv6CodeNoRoute   uint8 = 0
	ICMPv6CodeProhibit  uint8 = 1
	ICMPv6CodeAddress   uint8 = 3
	ICMPv6CodePort      uint8 = 4
	icmpv6FirstInformal uint8 = 128 // RFC 4443 section 2.1: errors have the high bit clear
)

// ICMP is the fixed part of an ICMP or ICMPv6 message.
type ICMP struct {
	Type, Code uint8
	Rest       uint32 // bytes 4 to 7: identifier and sequence number, MTU, pointer, flags
}

// ID is the identifier of an echo request or reply.
func (m ICMP) ID() uint16 { return uint16(m.Rest >> 16) }

// Seq is the sequence number of an echo request or reply.
func (m ICMP) Seq() uint16 { return uint16(m.Rest) }

// ICMP reads an ICMP or ICMPv6 header; false when the frame has none.
func (v *View) ICMP() (m ICMP, ok bool) {
	if !v.known() || v.HasPorts() {
		return m, false
	}
	h := v.Frame[v.L4:]
	return ICMP{Type: h[0], Code: h[1], Rest: be32(h[4:])}, true
}

// IsEchoRequest reports an ICMP or ICMPv6 echo request.
func (v *View) IsEchoRequest() bool {
	m, ok := v.ICMP()
	return ok && (v.Is4() && m.Type == ICMPEchoRequest || v.Is6() && m.Type == ICMPv6EchoRequest)
}

// IsICMPError reports an ICMP or ICMPv6 error, which quotes a packet.
func (v *View) IsICMPError() bool {
	m, ok := v.ICMP()
	if !ok {
		return false
	}
	if v.Is6() {
		return m.Type < icmpv6FirstInformal
	}
	switch m.Type {
	case ICMPUnreachable, ICMPRedirect, ICMPTimeExceeded, ICMPParamProblem, icmpSourceQuench:
		return true
	}
	return false
}

// MayCauseError reports whether a router may answer the packet with an ICMP error (RFC
// 1122 section 3.2.2, RFC 4443 section 2.4 e): not an ICMP error or redirect itself, not a later
// fragment, neither to a group nor from an address that names no single host.
func (v *View) MayCauseError() bool {
	if v.L3Len == 0 || v.Key.Frag == match.FragLater || v.Key.EthDst.IsMulticast() || v.IsICMPError() {
		return false
	}
	if m, ok := v.ICMP(); ok && v.Is6() && m.Type == icmpv6Redirect {
		return false
	}
	return !isGroup(v.Key.Dst) && !isGroup(v.Key.Src) && !isUnspecified(v.Key.Src)
}

func isGroup(a match.Addr) bool {
	if a.Is4() {
		return a[12] >= 224 // class D multicast, class E and broadcast
	}
	return a[0] == 0xff
}

func isUnspecified(a match.Addr) bool {
	if a.Is4() {
		return a[12] == 0 || a[12] == 127
	}
	return a == match.Addr{} || a == match.Addr{15: 1}
}

// Quoted is the packet that an ICMP error quotes, with offsets into v.Frame; false when v is no
// error or quotes less than a network header. Its L4 is set, and its ports are
// known, when at least 8 bytes of transport are quoted; L3Len is what its own
// header says, which may exceed the quote.
func (v *View) Quoted() (q View, ok bool) {
	if !v.IsICMPError() {
		return q, false
	}
	at, end := v.L4+ICMPLen, v.L3+v.L3Len
	h := v.Frame[at:end]
	q.Frame, q.L3 = v.Frame, at
	q.Key = match.Key{InPort: v.Key.InPort, EthType: v.Key.EthType}
	k := &q.Key
	hlen := IPv6Len
	if v.Is4() {
		if len(h) < IPv4Len || h[0]>>4 != 4 || h[0]&15 < 5 {
			return q, false
		}
		hlen = int(h[0]&15) * 4
		q.L3Len, q.TTL = int(be16(h[2:])), h[8]
		k.TOS, k.Proto = h[1], h[9]
		k.Src, k.Dst = Addr4(h[12:]), Addr4(h[16:])
		switch frag := be16(h[6:]); {
		case frag&0x1fff != 0:
			k.Frag = match.FragLater
		case frag&0x2000 != 0:
			k.Frag = match.FragFirst
		}
	} else {
		if len(h) < IPv6Len || h[0]>>4 != 6 {
			return q, false
		}
		q.L3Len, q.TTL = IPv6Len+int(be16(h[4:])), h[7]
		k.TOS, k.Proto = h[0]<<4|h[1]>>4, h[6]
		k.Src, k.Dst = match.Addr(h[8:24]), match.Addr(h[24:40])
		k.Proto, hlen, k.Frag = quotedExtensions(h)
	}
	if k.Frag == match.FragLater || len(h) < hlen+8 {
		return q, true
	}
	l4 := h[hlen:]
	switch k.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		k.SrcPort, k.DstPort = be16(l4), be16(l4[2:])
	case ProtoICMP, ProtoICMPv6:
		k.SrcPort = be16(l4)
		if isEcho(k.Proto, l4[0]) {
			k.DstPort = be16(l4[4:])
		}
	default:
		return q, true
	}
	q.L4 = at + hlen
	return q, true
}

// quotedExtensions walks the extension headers of a quoted IPv6 packet as far as it is quoted: the protocol behind them, where its
// header begins, and the fragment that it is.
func quotedExtensions(h []byte) (proto uint8, at int, frag uint8) {
	proto, at = h[6], IPv6Len
	for n := 0; isExt(proto) && n < maxExtHeaders && len(h) >= at+8; n++ {
		e := h[at:]
		size := (int(e[1]) + 1) * 8
		switch proto {
		case extAH:
			size = (int(e[1]) + 2) * 4
		case extFragment:
			size = 8
			switch field := be16(e[2:]); {
			case field&^7 != 0:
				return e[0], at + size, match.FragLater
			case field&1 != 0:
				frag = match.FragFirst
			}
		}
		proto, at = e[0], at+size
	}
	return proto, at, frag
}

func isEcho(proto, typ uint8) bool {
	if proto == ProtoICMP {
		return typ == ICMPEchoRequest || typ == ICMPEchoReply
	}
	return typ == ICMPv6EchoRequest || typ == ICMPv6EchoReply
}

// BuildICMP appends an ICMP or ICMPv6 message, by the family of ip; payload follows the
// first 8 bytes.
func BuildICMP(dst []byte, eth Ether, ip IP, m ICMP, payload []byte) []byte {
	proto := ProtoICMPv6
	if ip.Dst.Is4() {
		proto = ProtoICMP
	}
	dst = appendIP(dst, eth, ip, proto, ICMPLen+len(payload))
	at := len(dst)
	dst = append(dst, m.Type, m.Code)
	dst = append16(dst, 0, uint16(m.Rest>>16), uint16(m.Rest))
	dst = append(dst, payload...)
	return finish(dst, at, ip, proto)
}

// BuildEchoRequest appends an ICMP or ICMPv6 echo request, by the family of ip.
func BuildEchoRequest(dst []byte, eth Ether, ip IP, id, seq uint16, payload []byte) []byte {
	typ := ICMPv6EchoRequest
	if ip.Dst.Is4() {
		typ = ICMPEchoRequest
	}
	return BuildICMP(dst, eth, ip, ICMP{Type: typ, Rest: uint32(id)<<16 | uint32(seq)}, payload)
}

// BuildEchoReply appends the answer to an echo request of either family: addresses
// swapped, ToS and payload kept, IP options and extension headers left out. It
// appends nothing when request is no echo request, or a fragment of one.
func BuildEchoReply(dst []byte, request *View) []byte {
	if !request.IsEchoRequest() || request.Key.Frag != match.FragNone {
		return dst
	}
	m, _ := request.ICMP()
	m.Type, m.Code = ICMPEchoReply, 0
	if request.Is6() {
		m.Type = ICMPv6EchoReply
	}
	k := &request.Key
	ip := IP{Src: k.Dst, Dst: k.Src, TOS: k.TOS, DF: true}
	return BuildICMP(dst, request.Ether().Reverse(), ip, m, request.Payload())
}

// Longest IP packets that an error may make (RFC 1812 section 4.3.2.3, RFC 4443 section
// 2.4 c).
const (
	maxErrorIPv4 = 576
	maxErrorIPv6 = 1280
)

// BuildICMPError appends an error about packet v to its sender, from address src: the
// Ethernet addresses are v's, swapped. It quotes as much as RFC 1812 and RFC 4443
// allow. Whether an error may be sent at all is MayCauseError's question.
func BuildICMPError(dst []byte, v *View, src match.Addr, m ICMP) []byte {
	ip := IP{Src: src, Dst: v.Key.Src}
	room := maxErrorIPv6 - IPv6Len - ICMPLen
	if v.Is4() {
		ip.TOS = 0xc0 // RFC 1812 section 4.3.2.5: internetwork control
		room = maxErrorIPv4 - IPv4Len - ICMPLen
	}
	quote := v.Packet()
	if len(quote) > room {
		quote = quote[:room]
	}
	return BuildICMP(dst, v.Ether().Reverse(), ip, m, quote)
}

// BuildTimeExceeded appends "TTL exceeded in transit" of v's family.
func BuildTimeExceeded(dst []byte, v *View, src match.Addr) []byte {
	m := ICMP{Type: ICMPTimeExceeded}
	if v.Is6() {
		m.Type = ICMPv6TimeExceeded
	}
	return BuildICMPError(dst, v, src, m)
}

// BuildTooBig appends "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201)
// with the next hop's MTU in bytes.
func BuildTooBig(dst []byte, v *View, src match.Addr, mtu int) []byte {
	m := ICMP{Type: ICMPUnreachable, Code: ICMPCodeFragNeeded, Rest: uint32(uint16(mtu))}
	if v.Is6() {
		m = ICMP{Type: ICMPv6TooBig, Rest: uint32(mtu)}
	}
	return BuildICMPError(dst, v, src, m)
}
