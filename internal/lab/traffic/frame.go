package traffic

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Mode says in what the flows of a flood differ.
type Mode string

// Modes.
const (
	ModePorts        Mode = "ports"        // UDP from and to changing ports
	ModeDestinations Mode = "destinations" // UDP to changing addresses
	ModeSYN          Mode = "syn"          // TCP SYN from and to changing ports
)

const (
	ethLen   = 14
	frameLen = 64 // payload pads every frame to at least this
)

// frames makes frames that differ in their flow alone. Frame i is a function of i, so that
// a flood sends each flow once: 32 bits of i are ports, or the address within the prefix.
type frames struct {
	mode   Mode
	frame  []byte // template
	l3, l4 int    // offsets of the headers
	csum   int    // offset of the transport checksum
	target netip.Prefix
	ipSum  uint32 // of the template's IPv4 header without its checksum
	sum    uint32 // of the template's pseudo header and transport, likewise
}

func newFrames(mode Mode, srcMAC, dstMAC net.HardwareAddr, src netip.Addr, target netip.Prefix) (*frames, error) {
	dst := target.Addr()
	if src.Is4() != dst.Is4() {
		return nil, fmt.Errorf("source %s and target %s are of different families", src, dst)
	}
	if len(srcMAC) != 6 || len(dstMAC) != 6 {
		return nil, fmt.Errorf("MAC addresses %q and %q must have 6 bytes", srcMAC, dstMAC)
	}
	f := &frames{mode: mode, l3: ethLen, target: target.Masked()}
	proto, l4Len := byte(17), 8
	switch mode {
	case ModePorts, ModeDestinations:
	case ModeSYN:
		proto, l4Len = 6, 20
	default:
		return nil, fmt.Errorf("flood mode %q: want one of %v", mode, Modes())
	}
	ipLen := 20
	if src.Is6() {
		ipLen = 40
	}
	f.l4 = f.l3 + ipLen
	size := max(frameLen, f.l4+l4Len)
	f.frame = make([]byte, size)
	b := f.frame
	copy(b[0:], dstMAC)
	copy(b[6:], srcMAC)
	l4 := b[f.l4:]
	if src.Is4() {
		binary.BigEndian.PutUint16(b[12:], 0x0800)
		ip := b[f.l3:f.l4]
		ip[0] = 0x45
		binary.BigEndian.PutUint16(ip[2:], uint16(size-f.l3))
		ip[8], ip[9] = 64, proto
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		f.ipSum = sum16(ip)
		f.sum = sum16(ip[12:20])
	} else {
		binary.BigEndian.PutUint16(b[12:], 0x86dd)
		ip := b[f.l3:f.l4]
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], uint16(len(l4)))
		ip[6], ip[7] = proto, 64
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
		f.sum = sum16(ip[8:40])
	}
	if mode == ModeSYN {
		l4[12], l4[13] = 5<<4, 0x02
		binary.BigEndian.PutUint16(l4[14:], 0xffff)
		f.csum = f.l4 + 16
	} else {
		binary.BigEndian.PutUint16(l4[0:], 40000)
		binary.BigEndian.PutUint16(l4[2:], 9) // discard, RFC 863
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		f.csum = f.l4 + 6
	}
	f.sum += uint32(proto) + uint32(len(l4)) + sum16(l4)
	return f, nil
}

func (f *frames) room() []byte { return append([]byte(nil), f.frame...) }

// put makes buf, a copy of the template, frame i.
func (f *frames) put(buf []byte, i uint32) int {
	sum, ipSum := f.sum, f.ipSum
	v4 := f.l4-f.l3 == 20
	if f.mode == ModeDestinations {
		addr := buf[f.l3+36 : f.l3+40]
		if v4 {
			addr = buf[f.l3+16 : f.l3+20]
		}
		was := sum16(f.frame[f.l4-4 : f.l4])
		host := ^uint32(0) // the bits of the address that may change
		if bits := f.target.Bits() - (f.target.Addr().BitLen() - 32); bits > 0 {
			host = uint32(uint64(1)<<(32-bits) - 1)
		}
		base := f.target.Addr().As16()
		binary.BigEndian.PutUint32(addr, binary.BigEndian.Uint32(base[12:])&^host|i&host)
		delta := sum16(addr) + 0xffff - fold(was)
		sum += delta
		ipSum += delta
	} else {
		// Both ports change from one frame to the next, and 32 bits of i are one pair each.
		sport, dport := uint16(i), uint16(i>>16)^uint16(i)
		was := sum16(f.frame[f.l4 : f.l4+4])
		binary.BigEndian.PutUint16(buf[f.l4:], sport)
		binary.BigEndian.PutUint16(buf[f.l4+2:], dport)
		sum += uint32(sport) + uint32(dport) + 0xffff - fold(was)
	}
	if v4 {
		binary.BigEndian.PutUint16(buf[f.l3+10:], ^uint16(fold(ipSum)))
	}
	check := ^uint16(fold(sum))
	if check == 0 && f.mode != ModeSYN {
		check = 0xffff // 0 means that there is none, RFC 768
	}
	binary.BigEndian.PutUint16(buf[f.csum:], check)
	return len(buf)
}

// sum16 is the sum that the Internet checksum folds and inverts (RFC 1071).
func sum16(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint32 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}
