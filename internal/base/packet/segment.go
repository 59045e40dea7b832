package packet

// UDPSegments is how many datagrams a UDP GSO frame with size bytes of payload in each stands
// for, 0 when v is no such frame: no whole UDP datagram, a length that disagrees with the IP packet's, size 0.
func UDPSegments(v *View, size uint16) int {
	if v.Key.Proto != ProtoUDP || v.Key.Frag != 0 || size == 0 || !v.known() || int(be16(v.Transport()[4:])) != len(v.Transport()) {
		return 0
	}
	return (len(v.Payload()) + int(size) - 1) / int(size)
}

// AppendUDPSegment appends the frame of datagram i, from 0, of the UDPSegments that v stands for: v's headers, each
// with its own length, IPv4 identification (they count on from v's, as Linux has it) and valid checksums. With
// enough capacity it does not allocate. dst and v's frame must not overlap.
func AppendUDPSegment(dst []byte, v *View, size uint16, i int) []byte {
	payload := v.Payload()[i*int(size):]
	payload = payload[:min(int(size), len(payload))]
	at := len(dst)
	dst = append(dst, v.Frame[:v.L4+UDPLen]...)
	dst = append(dst, payload...)

	s := *v
	s.Frame = dst[at:]
	s.L3Len = len(s.Frame) - s.L3
	put16(s.Frame[s.L4+4:], uint16(UDPLen+len(payload)))
	ip := s.Frame[s.L3:s.L4]
	if v.Is4() {
		put16(ip[2:], uint16(s.L3Len))
		put16(ip[4:], be16(ip[4:])+uint16(i))
		put16(ip[10:], 0)
		put16(ip[10:], Checksum(ip))
	} else {
		put16(ip[4:], uint16(s.L3Len-IPv6Len))
	}
	FillChecksum(&s)
	return dst
}
