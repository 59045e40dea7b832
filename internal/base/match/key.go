// Package match holds the flow key, the same bytes in the kernel and in user
// space, and the mask that says which of its fields a decision has read.
package match

import (
	"encoding/binary"
	"net/netip"
	"unsafe"
)

// MAC is an Ethernet address in wire order.
type MAC [6]byte

// Addr is an IPv6 address, or an IPv4 address in its IPv4-mapped form
// (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2), in wire order. The zero value
// means that the packet has none.
type Addr [16]byte

// Values of Key.Frag.
const (
	FragNone  uint8 = 0 // not a fragment
	FragFirst uint8 = 1 // offset 0, more follow: transport header present
	FragLater uint8 = 2 // offset > 0: no transport header, ports are 0
)

// VLANPresent is set in Key.VLAN when the frame carries an 802.1Q tag, so that
// priority-tagged frames (VID 0, PCP 0) differ from untagged ones.
const VLANPresent uint16 = 0x1000

// Key identifies an exact-match flow. Its memory layout is that of struct
// flow_key in bpf/viaduct.h: 64 bytes, no padding, integers in host byte order,
// addresses in wire order. It is comparable and may be a map key.
//
// ARP uses Proto for the opcode, Src and Dst for the sender's and target's
// protocol addresses. ICMP and ICMPv6 use SrcPort for type<<8|code and DstPort
// for the identifier of an echo request or reply (0 for other types).
// The TTL is not part of the key: a packet whose TTL the flow's actions would
// bring to 0 misses with datapath.MissTTL instead.
type Key struct {
	InPort  uint32 // datapath port number of the ingress
	TunKey  uint32 // VXLAN VNI when the packet came from a tunnel, else 0
	EthDst  MAC
	EthSrc  MAC
	EthType uint16 // of the payload, after one VLAN tag
	VLAN    uint16 // TCI of the outer tag with VLANPresent set; 0: untagged
	Src     Addr
	Dst     Addr
	Proto   uint8 // IP protocol, after IPv6 extension headers; ARP: opcode
	TOS     uint8 // IPv4 ToS or IPv6 traffic class
	Frag    uint8
	_       uint8  // always 0
	SrcPort uint16 // TCP, UDP, SCTP; ICMP: type<<8|code
	DstPort uint16 // TCP, UDP, SCTP; ICMP echo: identifier
}

// KeySize is the size of a Key in bytes, in Go and in the kernel.
const KeySize = 64

var _ [KeySize]byte = [unsafe.Sizeof(Key{})]byte{}

// Bytes is the key's memory: what the kernel's map takes. It aliases k.
func (k *Key) Bytes() *[KeySize]byte { return (*[KeySize]byte)(unsafe.Pointer(k)) }

// AddrFrom converts an address; IPv4 becomes IPv4-mapped. The zero netip.Addr
// becomes the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// Is4 reports whether a is an IPv4-mapped address.
func (a Addr) Is4() bool {
	return *(*[10]byte)(a[:10]) == [10]byte{} && a[10] == 0xff && a[11] == 0xff
}

// Netip converts back; IPv4-mapped addresses are unmapped.
func (a Addr) Netip() netip.Addr {
	return netip.AddrFrom16(a).Unmap()
}

// String is the textual form of RFC 5952, or dotted quad for IPv4.
func (a Addr) String() string { return a.Netip().String() }

const hexDigits = "0123456789abcdef"

// String is six lower-case hexadecimal pairs with colons.
func (m MAC) String() string {
	b := make([]byte, 0, 17)
	for i, c := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return string(b)
}

// IsMulticast reports the group bit (IEEE 802); broadcast counts as multicast.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// Broadcast is ff:ff:ff:ff:ff:ff.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ConnectionHash is the same for both directions of a connection, and spreads connections evenly over
// the values modulo any small number. It chooses the worker, in the kernel (connection_hash in
// bpf/upcall.h) and in user space alike. Fragments, first ones included, hash without ports.
func (k *Key) ConnectionHash() uint32 { return mix(k.ConnectionSum()) }

// mix is Fibonacci hashing; the high half is the well mixed one.
func mix(sum uint32) uint32 { return sum * 0x9e3779b1 >> 16 }

// ConnectionSum is what ConnectionHash mixes.
func (k *Key) ConnectionSum() (h uint32) {
	switch k.EthType {
	case 0x0800, 0x86dd, 0x0806:
	default:
		m := func(i int) uint32 {
			return uint32(binary.NativeEndian.Uint16(k.EthDst[i:]) ^ binary.NativeEndian.Uint16(k.EthSrc[i:]))
		}
		return m(0) + m(2)<<8 + m(4)<<16
	}
	for i := 0; i < 16; i += 4 {
		h ^= binary.NativeEndian.Uint32(k.Src[i:]) ^ binary.NativeEndian.Uint32(k.Dst[i:])
	}
	if k.EthType != 0x0806 {
		h += uint32(k.Proto)
		if k.Proto == 1 || k.Proto == 58 {
			h ^= uint32(k.DstPort)
		} else if k.Frag == FragNone {
			h ^= uint32(k.SrcPort ^ k.DstPort)
		}
	}
	return h
}

// Steer gives addresses for a frame of no known protocol whose ConnectionSum is sum: it goes to the worker of the
// packets that have the same.
func Steer(sum uint32) (dst, src MAC) {
	src = MAC{0x02}
	dst = src
	lo, hi := uint16(sum), uint16(sum>>16)
	binary.NativeEndian.PutUint16(dst[0:], binary.NativeEndian.Uint16(src[0:])^lo)
	binary.NativeEndian.PutUint16(dst[4:], binary.NativeEndian.Uint16(src[4:])^hi)
	return dst, src
}

// SumFor is a ConnectionSum that leads to a worker of so many.
func SumFor(worker, workers uint32) (sum uint32) {
	for mix(sum)%workers != worker {
		sum++
	}
	return sum
}
