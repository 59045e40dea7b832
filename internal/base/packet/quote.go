package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// RewriteQuoted makes the packet that an ICMP error quotes look as t says, in place, the checksum of its IPv4
// header and that of the error included. The quoted transport checksum is left as it is: hosts do not look at
// it (RFC 5508 section 4.2). False, and nothing is changed, when frame quotes nothing of the same family and protocol.
func RewriteQuoted(frame []byte, t *match.Tuple) bool {
	v, bad := Parse(frame, 0)
	if bad != 0 {
		return false
	}
	q, ok := v.Quoted()
	if !ok || q.L4 == 0 || q.Key.Proto != t.Proto || t.Src.Is4() != v.Is4() || t.Dst.Is4() != v.Is4() {
		return false
	}
	state := ChecksumState(&v)
	ip, l4 := frame[q.L3:], frame[q.L4:]
	if v.Is4() {
		copy(ip[12:16], t.Src[12:])
		copy(ip[16:20], t.Dst[12:])
		put16(ip[10:], 0)
		put16(ip[10:], Checksum(ip[:int(ip[0]&15)*4]))
	} else {
		copy(ip[8:24], t.Src[:])
		copy(ip[24:40], t.Dst[:])
	}
	switch t.Proto {
	case ProtoICMP, ProtoICMPv6:
		put16(l4[4:], t.SrcPort|t.DstPort) // an echo's: one of them is 0
	default:
		put16(l4, t.SrcPort)
		put16(l4[2:], t.DstPort)
	}
	if state == ChecksumValid {
		FillChecksum(&v)
	}
	return true
}
