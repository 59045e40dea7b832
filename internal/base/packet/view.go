package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// Bits of View.TCPFlags (RFC 9293 section 3.1).
const (
	FlagFIN uint8 = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
)

// Is4 reports whether the frame carries IPv4.
func (v *View) Is4() bool { return v.Key.EthType == EthTypeIPv4 }

// Is6 reports whether the frame carries IPv6.
func (v *View) Is6() bool { return v.Key.EthType == EthTypeIPv6 }

// Packet is the IP packet without Ethernet header and padding; nil when not IP.
func (v *View) Packet() []byte {
	if v.L3Len == 0 {
		return nil
	}
	return v.Frame[v.L3 : v.L3+v.L3Len]
}

// Transport is the transport header with what follows it, to the end of the IP
// packet; nil when absent (not IP, a later fragment).
func (v *View) Transport() []byte {
	if v.L4 == 0 {
		return nil
	}
	return v.Frame[v.L4 : v.L3+v.L3Len]
}

// Payload is what follows a TCP, UDP, SCTP, ICMP or ICMPv6 header; nil when there is no such
// header or when a TCP data offset points outside the segment.
func (v *View) Payload() []byte {
	l4 := v.Transport()
	if !v.known() {
		return nil
	}
	n := ICMPLen
	switch v.Key.Proto {
	case ProtoTCP:
		n = int(l4[12]>>4) * 4
		if n < TCPLen || n > len(l4) {
			return nil
		}
	case ProtoUDP:
		n = UDPLen
	case ProtoSCTP:
		n = SCTPLen
	}
	return l4[n:]
}

// gsoByFrags is the size of segments that are of several lengths: SCTP's (GSO_BY_FRAGS in linux/skbuff.h).
const gsoByFrags = 0xffff

// WireLen is the length in bytes of the IP packet on the wire; of one that stands for several segments, that of a full one. 0: it is
// not IP, or its segments are of lengths that the sender alone knows. Of an offloaded packet in a tunnel of the sender's it is too small
// by the inner headers. bpf/parse.h says the same.
func (v *View) WireLen(gso GSO) int {
	switch gso.Size {
	case 0:
		return v.L3Len
	case gsoByFrags:
		return 0
	}
	headers := 0
	if p := v.Payload(); p != nil {
		headers = v.L3Len - len(p)
	}
	return min(v.L3Len, headers+int(gso.Size))
}

// TCPFlags is the flag byte of a TCP header (CWR to FIN); 0 when there is none.
func (v *View) TCPFlags() uint8 {
	if v.L4 == 0 || v.Key.Proto != ProtoTCP {
		return 0
	}
	return v.Frame[v.L4+13]
}

// known reports whether there is a transport header that this package
// understands. Its minimal length is then within the frame.
func (v *View) known() bool {
	if v.L4 == 0 {
		return false
	}
	switch v.Key.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		return true
	case ProtoICMP:
		return v.Is4()
	case ProtoICMPv6:
		return v.Is6()
	}
	return false
}

// HasPorts reports whether the frame carries TCP, UDP or SCTP ports.
func (v *View) HasPorts() bool {
	return v.known() && v.Key.Proto != ProtoICMP && v.Key.Proto != ProtoICMPv6
}

// Ether is how a built frame is addressed.
type Ether struct {
	Dst, Src match.MAC
	VLAN     uint16 // TCI with match.VLANPresent, which is not sent; 0: untagged
}

// Ether is the frame's own addressing.
func (v *View) Ether() Ether { return Ether{v.Key.EthDst, v.Key.EthSrc, v.Key.VLAN} }

// Reverse swaps source and destination.
func (e Ether) Reverse() Ether { return Ether{e.Src, e.Dst, e.VLAN} }
