package packet

import (
	"encoding/binary"
	"math/bits"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Sum adds b to an unfolded one's complement sum (RFC 1071). An odd
// last byte counts as if a zero followed, so only the last piece may be odd.
func Sum(sum uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	sum, carry = bits.Add64(sum, carry, 0)
	return sum + carry
}

// Fold reduces a sum to 16 bits, not complemented.
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}

// Checksum is the Internet checksum of b, complemented (RFC 1071).
func Checksum(b []byte) uint16 { return ^Fold(Sum(0, b)) }

// PseudoSum is the folded, uncomplemented sum of the pseudo header of TCP, UDP or
// ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1) for addresses of either
// family; n is the length of transport header and payload.
func PseudoSum(src, dst match.Addr, proto uint8, n int) uint16 {
	var sum uint64
	if src.Is4() {
		sum = Sum(Sum(0, src[12:]), dst[12:])
	} else {
		sum = Sum(Sum(0, src[:]), dst[:])
	}
	return Fold(uint64(Fold(sum)) + uint64(proto) + uint64(n))
}

// UpdateChecksum is checksum sum after the bytes was, at an even place of what it
// covers, became is (RFC 1624, equation 3). Both have the same, even length.
func UpdateChecksum(sum uint16, was, is []byte) uint16 {
	return ^Fold(uint64(^sum) + uint64(^Fold(Sum(0, was))) + uint64(Fold(Sum(0, is))))
}

// ChecksumStatus says what the transport checksum of a frame is worth.
type ChecksumStatus uint8

// States of a transport checksum.
const (
	ChecksumNone    ChecksumStatus = iota // no field, an unused one (UDP 0), or a fragment: cannot be judged
	ChecksumValid                         // covers header and payload
	ChecksumPartial                       // pseudo header only, the rest is left to the device (Linux CHECKSUM_PARTIAL)
	ChecksumWrong                         // none of these
)

func (s ChecksumStatus) String() string {
	return [...]string{"none", "valid", "partial", "wrong"}[s]
}

// ChecksumState judges the transport checksum of v, reading the whole packet. A checksum
// that is valid as well as partial (1 packet in 65535) is valid: nobody
// needs to complete it. Not so for a GSO frame; see NeedsChecksum.
// A zero SCTP checksum is partial: Linux leaves 0 there for the device.
func ChecksumState(v *View) ChecksumStatus {
	at := v.checksumAt()
	if at == 0 || v.Key.Frag != match.FragNone {
		return ChecksumNone
	}
	l4 := v.Transport()
	if v.Key.Proto == ProtoSCTP {
		return sctpState(l4)
	}
	field := be16(v.Frame[at:])
	if field == 0 && v.Key.Proto == ProtoUDP {
		return ChecksumNone
	}
	pseudo := v.pseudoSum()
	switch {
	case Fold(Sum(uint64(pseudo), l4)) == 0xffff:
		return ChecksumValid
	case v.Key.Proto != ProtoICMP && field == pseudo:
		return ChecksumPartial
	}
	return ChecksumWrong
}

// NeedsChecksum reports whether the device has to complete the transport checksum, that is whether
// the frame must be sent with VIRTIO_NET_HDR_F_NEEDS_CSUM. Every GSO frame does.
func NeedsChecksum(v *View, gso GSO) bool {
	at := v.checksumAt()
	if at == 0 || v.Key.Frag != match.FragNone {
		return false
	}
	if gso.Size != 0 {
		return true
	}
	if v.Key.Proto != ProtoSCTP && be16(v.Frame[at:]) != v.pseudoSum() {
		return false // cheap: most complete checksums end here
	}
	return ChecksumState(v) == ChecksumPartial
}

// ChecksumOffset is where in the transport header the field lies, as
// virtio_net_hdr.csum_offset wants it; -1 when there is none.
func ChecksumOffset(v *View) int {
	if !v.known() {
		return -1
	}
	switch v.Key.Proto {
	case ProtoTCP:
		return 16
	case ProtoUDP:
		return 6
	case ProtoSCTP:
		return 8
	default: // ICMP, ICMPv6
		return 2
	}
}

// checksumAt is the offset of the transport checksum in the frame, 0 when there is none.
func (v *View) checksumAt() int {
	if o := ChecksumOffset(v); o >= 0 {
		return v.L4 + o
	}
	return 0
}

// pseudoSum is 0 for ICMPv4, whose checksum has no pseudo header.
func (v *View) pseudoSum() uint16 {
	if v.Key.Proto == ProtoICMP {
		return 0
	}
	return PseudoSum(v.Key.Src, v.Key.Dst, v.Key.Proto, v.L3+v.L3Len-v.L4)
}

// FillChecksum writes a valid transport checksum. It does nothing to fragments
// and to frames without such a field.
func FillChecksum(v *View) {
	at := v.checksumAt()
	if at == 0 || v.Key.Frag != match.FragNone {
		return
	}
	if v.Key.Proto == ProtoSCTP {
		fillSCTP(v.Transport())
		return
	}
	put16(v.Frame[at:], 0)
	c := ^Fold(Sum(uint64(v.pseudoSum()), v.Transport()))
	if c == 0 && v.Key.Proto == ProtoUDP {
		c = 0xffff // RFC 768: 0 means that there is none
	}
	put16(v.Frame[at:], c)
}

// FillPartial writes the pseudo header's sum into the checksum field, as Linux does for
// CHECKSUM_PARTIAL (SCTP: 0). It does nothing to ICMPv4, fragments and other frames.
func FillPartial(v *View) {
	at := v.checksumAt()
	switch {
	case at == 0, v.Key.Proto == ProtoICMP, v.Key.Frag != match.FragNone:
	case v.Key.Proto == ProtoSCTP:
		put32(v.Frame[at:], 0)
	default:
		put16(v.Frame[at:], v.pseudoSum())
	}
}
