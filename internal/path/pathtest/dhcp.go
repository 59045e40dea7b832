package pathtest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// The messages here are written and read byte by byte, not with the library that answers them.

// dhcp is the DHCPv4 message of
//
//	dhcp eth=SRC>DST ip=SRC>DST type=N [chaddr=MAC] [ciaddr=ADDR] [giaddr=ADDR] [flags=N] [requested=ADDR]
//	     [server=ADDR] [max=N] [raw=HEX] [from=PORT]
//
// raw is added to the options as it is.
func (w *words) dhcp() []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:], "\x01\x02\x03\x04")
	binary.BigEndian.PutUint16(b[10:], uint16(w.number("flags", 0)))
	w.addr4(b[12:], "ciaddr")
	w.addr4(b[24:], "giaddr")
	mac := w.mac("chaddr", w.eth().Src)
	copy(b[28:], mac[:])
	copy(b[236:], "\x63\x82\x53\x63")
	if t := w.number("type", 0); t > 0 {
		b = append(b, 53, 1, byte(t))
	}
	for _, o := range []struct {
		code byte
		key  string
	}{{50, "requested"}, {54, "server"}} {
		if _, ok := w.get[o.key]; ok {
			b = append(b, o.code, 4, 0, 0, 0, 0)
			w.addr4(b[len(b)-4:], o.key)
		}
	}
	if n := w.number("max", 0); n > 0 {
		b = append(b, 57, 2, byte(n>>8), byte(n))
	}
	return append(append(b, w.raw()...), 255)
}

func (w *words) addr4(b []byte, key string) {
	if s, ok := w.get[key]; ok {
		a := addr(s)
		copy(b, a[12:])
	}
}

func (w *words) raw() []byte {
	b, err := hex.DecodeString(w.get["raw"])
	if err != nil {
		panic(err)
	}
	return b
}

// dhcp6 is the DHCPv6 message of
//
//	dhcp6 eth=SRC>DST ip=SRC>DST type=N [id=none] [server=ours|other] [ia=ADDR|none] [raw=HEX]
//
// ia asks for an address: for a certain one, or for any.
func (w *words) dhcp6() []byte {
	b := []byte{byte(w.number("type", 1)), 1, 2, 3}
	if w.get["id"] != "none" {
		mac := w.eth().Src
		b = append(append(b, 0, 1, 0, 10, 0, 3, 0, 1), mac[:]...)
	}
	if s, ok := w.get["server"]; ok {
		last := byte(0)
		if s != "ours" {
			last = 9
		}
		b = append(b, 0, 2, 0, 10, 0, 3, 0, 1, 0x02, 0x64, 0x68, 0x63, 0x70, last)
	}
	if s, ok := w.get["ia"]; ok {
		ia := []byte{0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0}
		if s != "none" {
			a := addr(s)
			ia = append(append(append(ia, 0, 5, 0, 24), a[:]...), make([]byte, 8)...)
		}
		b = append(append(b, 0, 3, 0, byte(len(ia))), ia...)
	}
	return append(b, w.raw()...)
}

// routerDiscovery is a solicitation or an advertisement:
//
//	rs eth=SRC>DST ip=SRC>DST [ttl=N] [raw=HEX]
//	ra the same
func (w *words) routerDiscovery(kind string, eth packet.Ether) []byte {
	ip := w.ip()
	ip.TTL = uint8(w.number("ttl", 255))
	if kind == "ra" {
		return packet.BuildRouterAdvert(nil, eth, ip.Src, ip.Dst, packet.RouterAdvert{MAC: eth.Src, Lifetime: 1800})
	}
	return packet.BuildICMP(nil, eth, ip, packet.ICMP{Type: packet.ICMPv6RouterSol}, w.raw())
}

// describeDHCP is one line about a server's message; "" when it is none. Options are code=hexadecimal.
func describeDHCP(v *packet.View) string {
	b := v.Payload()
	var s strings.Builder
	switch {
	case v.Is4() && v.HasPorts() && v.Key.DstPort == 68 && len(b) >= 240:
		fmt.Fprintf(&s, "dhcp op %d flags %#x ciaddr %s yiaddr %s, %d bytes, checksum %s:", b[0], binary.BigEndian.Uint16(b[10:]),
			packet.Addr4(b[12:]), packet.Addr4(b[16:]), len(b), packet.ChecksumState(v))
		for b = b[240:]; len(b) > 1 && b[0] != 255; b = b[2+int(b[1]):] {
			fmt.Fprintf(&s, " %d=%x", b[0], b[2:2+int(b[1])])
		}
	case v.Is6() && v.HasPorts() && v.Key.DstPort == 546 && len(b) >= 4:
		fmt.Fprintf(&s, "dhcp6 type %d, checksum %s:", b[0], packet.ChecksumState(v))
		for b = b[4:]; len(b) >= 4; {
			n := 4 + int(binary.BigEndian.Uint16(b[2:]))
			fmt.Fprintf(&s, " %d=%x", binary.BigEndian.Uint16(b), b[4:n])
			b = b[n:]
		}
	}
	return s.String()
}

// describeAdvert lists the options of a router advertisement as type=hexadecimal.
func describeAdvert(b []byte) string {
	var s strings.Builder
	s.WriteString(", router advertisement:")
	for b = b[16:]; len(b) >= 8; b = b[8*int(b[1]):] {
		fmt.Fprintf(&s, " %d=%x", b[0], b[2:8*int(b[1])])
	}
	return s.String()
}
