package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// The Build functions append a frame to dst and return the longer slice, like
// append: with enough capacity they do not allocate. Checksums are valid. Payloads must not
// overlap dst's free capacity. Frames are not padded to 60 bytes.

// IP is the network header of a built packet; its family is that of the
// addresses, which must agree.
type IP struct {
	Src, Dst match.Addr
	TTL      uint8 // 0 means 64
	TOS      uint8
	DF       bool   // IPv4
	ID       uint16 // IPv4
}

// TCP is the header of a built segment, without options.
type TCP struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	Window           uint16
}

// BuildUDP appends a UDP datagram.
func BuildUDP(dst []byte, eth Ether, ip IP, srcPort, dstPort uint16, payload []byte) []byte {
	n := UDPLen + len(payload)
	dst = appendIP(dst, eth, ip, ProtoUDP, n)
	at := len(dst)
	dst = append16(dst, srcPort, dstPort, uint16(n), 0)
	dst = append(dst, payload...)
	return finish(dst, at, ip, ProtoUDP)
}

// BuildTCP appends a TCP segment.
func BuildTCP(dst []byte, eth Ether, ip IP, tcp TCP, payload []byte) []byte {
	dst = appendIP(dst, eth, ip, ProtoTCP, TCPLen+len(payload))
	at := len(dst)
	dst = append16(dst, tcp.SrcPort, tcp.DstPort,
		uint16(tcp.Seq>>16), uint16(tcp.Seq), uint16(tcp.Ack>>16), uint16(tcp.Ack),
		TCPLen/4<<12|uint16(tcp.Flags), tcp.Window, 0, 0)
	dst = append(dst, payload...)
	return finish(dst, at, ip, ProtoTCP)
}

// BuildSCTP appends an SCTP packet; chunks is what follows the common header.
func BuildSCTP(dst []byte, eth Ether, ip IP, srcPort, dstPort uint16, tag uint32, chunks []byte) []byte {
	dst = appendIP(dst, eth, ip, ProtoSCTP, SCTPLen+len(chunks))
	at := len(dst)
	dst = append16(dst, srcPort, dstPort, uint16(tag>>16), uint16(tag), 0, 0)
	dst = append(dst, chunks...)
	fillSCTP(dst[at:])
	return dst
}

// BuildIP appends a packet of any other protocol, with payload as it is.
func BuildIP(dst []byte, eth Ether, ip IP, proto uint8, payload []byte) []byte {
	dst = appendIP(dst, eth, ip, proto, len(payload))
	return append(dst, payload...)
}

func appendEther(dst []byte, e Ether, ethType uint16) []byte {
	dst = append(dst, e.Dst[:]...)
	dst = append(dst, e.Src[:]...)
	if e.VLAN != 0 {
		dst = append16(dst, EthTypeVLAN, e.VLAN&^match.VLANPresent)
	}
	return append16(dst, ethType)
}

// appendIP appends the headers in front of n bytes of transport.
func appendIP(dst []byte, e Ether, ip IP, proto uint8, n int) []byte {
	if ip.TTL == 0 {
		ip.TTL = 64
	}
	if !ip.Dst.Is4() {
		dst = appendEther(dst, e, EthTypeIPv6)
		dst = append(dst, 0x60|ip.TOS>>4, ip.TOS<<4, 0, 0)
		dst = append16(dst, uint16(n))
		dst = append(dst, proto, ip.TTL)
		dst = append(dst, ip.Src[:]...)
		return append(dst, ip.Dst[:]...)
	}
	dst = appendEther(dst, e, EthTypeIPv4)
	at := len(dst)
	var frag uint16
	if ip.DF {
		frag = 0x4000
	}
	dst = append(dst, 0x45, ip.TOS)
	dst = append16(dst, uint16(IPv4Len+n), ip.ID, frag)
	dst = append(dst, ip.TTL, proto, 0, 0)
	dst = append(dst, ip.Src[12:]...)
	dst = append(dst, ip.Dst[12:]...)
	put16(dst[at+10:], Checksum(dst[at:]))
	return dst
}

// finish fills the checksum of the transport header at at.
func finish(dst []byte, at int, ip IP, proto uint8) []byte {
	v := View{Frame: dst, L3: at, L4: at, L3Len: len(dst) - at} // enough for a checksum
	v.Key.Src, v.Key.Dst, v.Key.Proto, v.Key.EthType = ip.Src, ip.Dst, proto, EthTypeIPv6
	if ip.Dst.Is4() {
		v.Key.EthType = EthTypeIPv4
	}
	FillChecksum(&v)
	return dst
}

func append16(dst []byte, xs ...uint16) []byte {
	for _, x := range xs {
		dst = append(dst, byte(x>>8), byte(x))
	}
	return dst
}
