package packet

import (
	"encoding/binary"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Lengths of headers without options, in bytes.
const (
	EthLen  = 14
	VLANLen = 4
	IPv4Len = 20
	IPv6Len = 40
	ARPLen  = 28
	TCPLen  = 20
	UDPLen  = 8
	SCTPLen = 12
	ICMPLen = 8
)

// IPv6 extension headers that the parser walks (RFC 8200, AH: RFC 4302).
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extAH       = 51
	extDstOpts  = 60

	maxExtHeaders = 8
)

// Parse reads the headers of an Ethernet frame. It returns drop.None, or
// drop.Malformed, in which case the View means nothing. It never allocates. Key.TunKey
// is left 0: it is metadata that no frame carries.
//
// The same rules are written in bpf/parse.h; both sides must define the same
// key for every frame. "Short" means that bytes are missing before the end that the
// layer below gives: of the frame for Ethernet, of the IP packet for transport.
//
//	layer     condition                                    result
//	Ethernet  frame < 14 bytes                             Malformed
//	          type 0x8100 or 0x88a8                        VLAN = TCI|VLANPresent, EthType = type after the tag;
//	                                                       short: Malformed
//	          a second tag                                 EthType = its type, rest opaque
//	          any other type (802.3 lengths too)           EthType, rest opaque
//	ARP       < 28 bytes                                   Malformed
//	          not Ethernet/IPv4 (1, 0x800, 6, 4), op > 255 opaque: Proto, Src, Dst 0
//	          else                                         Proto = op, Src = spa, Dst = tpa
//	IPv4      short, version != 4, IHL < 5,                Malformed
//	          total length < header or > frame
//	          total length 0 (BIG TCP)                     Malformed: ports are limited to 64 KB GSO
//	          offset > 0                                   FragLater: ports 0, no L4
//	          offset 0 and MF                              FragFirst
//	IPv6      short, version != 6, payload length > frame  Malformed
//	          payload length 0 (jumbogram)                 as it says: nothing follows
//	          0, 43, 60 (hop-by-hop, routing, dest. opts)  skip (len+1)*8
//	          51 (AH)                                      skip (len+2)*4
//	          44 (fragment), offset > 0                    FragLater, Proto = its next header, stop
//	          44, offset 0 and M                           FragFirst, skip 8
//	          44, offset 0 and no M (atomic, RFC 6946)     FragNone, skip 8
//	          any of these short, or a ninth one           Malformed
//	          anything else (ESP, 59 no next header)       Proto, ports 0
//	TCP       < 20 bytes                                   Malformed
//	UDP       < 8 bytes                                    Malformed
//	SCTP      < 12 bytes                                   Malformed
//	ICMP(v6)  < 8 bytes                                    Malformed
//	          ICMP in IPv6, ICMPv6 in IPv4                 ports 0, opaque
//	          echo request, reply (8, 0; 128, 129)         SrcPort = type<<8|code, DstPort = identifier
//	          other types                                  SrcPort = type<<8|code, DstPort 0
//
// The transport minimum holds for first fragments too (RFC 1858: tiny
// fragments). Header checksums, and the TCP data offset, are not checked here.
// Bytes behind the IP packet are padding.
func Parse(frame []byte, inPort uint32) (v View, _ drop.Reason) {
	if len(frame) < EthLen {
		return v, drop.Malformed
	}
	v.Frame = frame
	k := &v.Key
	k.InPort = inPort
	copy(k.EthDst[:], frame[0:6])
	copy(k.EthSrc[:], frame[6:12])
	off := EthLen
	k.EthType = be16(frame[12:])
	if isVLAN(k.EthType) {
		if len(frame) < EthLen+VLANLen {
			return v, drop.Malformed
		}
		k.VLAN = be16(frame[14:]) | match.VLANPresent
		k.EthType = be16(frame[16:])
		off += VLANLen
	}
	ok := true
	switch k.EthType {
	case EthTypeIPv4:
		ok = v.parseIPv4(off)
	case EthTypeIPv6:
		ok = v.parseIPv6(off)
	case EthTypeARP:
		ok = v.parseARP(off)
	}
	if !ok {
		return v, drop.Malformed
	}
	return v, drop.None
}

func (v *View) parseIPv4(off int) bool {
	h := v.Frame[off:]
	if len(h) < IPv4Len || h[0]>>4 != 4 {
		return false
	}
	hlen, total := int(h[0]&15)*4, int(be16(h[2:]))
	if hlen < IPv4Len || total < hlen || total > len(h) {
		return false
	}
	k := &v.Key
	v.L3, v.L3Len, v.TTL = off, total, h[8]
	k.TOS, k.Proto = h[1], h[9]
	k.Src, k.Dst = Addr4(h[12:16]), Addr4(h[16:20])
	frag := be16(h[6:])
	v.DF = frag&0x4000 != 0
	switch {
	case frag&0x1fff != 0:
		k.Frag = match.FragLater
		return true
	case frag&0x2000 != 0:
		k.Frag = match.FragFirst
	}
	return v.parseL4(off + hlen)
}

func (v *View) parseIPv6(off int) bool {
	h := v.Frame[off:]
	if len(h) < IPv6Len || h[0]>>4 != 6 {
		return false
	}
	total := IPv6Len + int(be16(h[4:]))
	if total > len(h) {
		return false
	}
	h = h[:total]
	k := &v.Key
	v.L3, v.L3Len, v.TTL, v.DF = off, total, h[7], true
	k.TOS = h[0]<<4 | h[1]>>4
	copy(k.Src[:], h[8:24])
	copy(k.Dst[:], h[24:40])
	next, at := h[6], IPv6Len
	for n := 0; isExt(next); n++ {
		if n == maxExtHeaders || len(h) < at+8 {
			return false
		}
		e := h[at:]
		size := (int(e[1]) + 1) * 8
		switch next {
		case extAH:
			size = (int(e[1]) + 2) * 4
		case extFragment:
			size = 8
			frag := be16(e[2:])
			if frag&^7 != 0 {
				k.Frag, k.Proto = match.FragLater, e[0]
				return true
			}
			if frag&1 != 0 {
				k.Frag = match.FragFirst
			}
		}
		if len(h) < at+size {
			return false
		}
		next = e[0]
		at += size
	}
	k.Proto = next
	return v.parseL4(off + at)
}

// parseL4 reads what the key holds of the transport header at off.
func (v *View) parseL4(off int) bool {
	k := &v.Key
	h := v.Frame[off : v.L3+v.L3Len]
	v.L4 = off
	need := 0
	switch k.Proto {
	case ProtoTCP:
		need = TCPLen
	case ProtoUDP:
		need = UDPLen
	case ProtoSCTP:
		need = SCTPLen
	case ProtoICMP, ProtoICMPv6:
		if (k.Proto == ProtoICMP) != (k.EthType == EthTypeIPv4) {
			return true
		}
		if len(h) < ICMPLen {
			return false
		}
		k.SrcPort = be16(h)
		if isEcho(k.Proto, h[0]) {
			k.DstPort = be16(h[4:])
		}
		return true
	default:
		return true
	}
	if len(h) < need {
		return false
	}
	k.SrcPort, k.DstPort = be16(h), be16(h[2:])
	return true
}

// Addr4 is the IPv4-mapped form of the four bytes at b.
func Addr4(b []byte) (a match.Addr) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
	return a
}

func isVLAN(ethType uint16) bool { return ethType == EthTypeVLAN || ethType == EthTypeQinQ }

func isExt(next uint8) bool {
	switch next {
	case extHopByHop, extRouting, extFragment, extAH, extDstOpts:
		return true
	}
	return false
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func put16(b []byte, x uint16) { binary.BigEndian.PutUint16(b, x) }
func put32(b []byte, x uint32) { binary.BigEndian.PutUint32(b, x) }
