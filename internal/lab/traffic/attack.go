package traffic

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// Modes of attacks: what a rogue VM may send to take more than its share. Each frame is made anew, so they are sent more slowly
// than the modes that differ in a field or two.
const (
	ModeSources   Mode = "sources"   // UDP from forged addresses and changing ports
	ModeMACs      Mode = "macs"      // UDP from forged MAC addresses, to the gateway
	ModeUnknown   Mode = "unknown"   // UDP from forged to unknown MAC addresses: a bridge floods each
	ModeARP       Mode = "arp"       // ARP requests for changing addresses
	ModeND        Mode = "nd"        // neighbour solicitations for changing addresses
	ModeStorm     Mode = "storm"     // broadcasts, each a flow of its own
	ModeFragments Mode = "fragments" // first and later fragments of datagrams that are never whole
	ModeDHCP      Mode = "dhcp"      // DHCPDISCOVER of changing clients
	ModeTTL       Mode = "ttl"       // UDP with TTL 1: a router answers each
	ModeExpensive Mode = "expensive" // as long as the MTU allows, to changing addresses from changing ports
	ModeTuples    Mode = "tuples"    // headers that differ from the target in one bit of each field: tuple space explosion
	ModeSizes     Mode = "sizes"     // frames that are too short for their headers, or whose headers promise too much
	ModeMixed     Mode = "mixed"     // all of these in turns
)

// attackModes has what makes a frame of each mode; ModeMixed has them all.
var attackModes = []struct {
	mode  Mode
	frame func(a *attack, buf []byte, r random) []byte
}{
	{ModeSources, (*attack).sources}, {ModeMACs, (*attack).macs}, {ModeUnknown, (*attack).unknown}, {ModeARP, (*attack).arp},
	{ModeND, (*attack).nd}, {ModeStorm, (*attack).storm}, {ModeFragments, (*attack).fragments}, {ModeDHCP, (*attack).dhcp},
	{ModeTTL, (*attack).ttl}, {ModeExpensive, (*attack).expensive}, {ModeTuples, (*attack).tuples}, {ModeSizes, (*attack).sizes},
}

// Modes lists all modes of floods.
func Modes() []Mode {
	list := []Mode{ModePorts, ModeDestinations, ModeSYN}
	for _, m := range attackModes {
		list = append(list, m.mode)
	}
	return append(list, ModeMixed)
}

// random is what is random in frame i: the same for the same i, in every run.
type random uint64

// randomOf is splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
func randomOf(i uint32) random {
	x := uint64(i)*0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return random(x ^ x>>31)
}

func (r random) low() uint16  { return uint16(r) }
func (r random) high() uint16 { return uint16(r >> 16) }
func (r random) top() uint32  { return uint32(r >> 32) }

// mac is a unicast MAC address, locally administered.
func (r random) mac() match.MAC {
	var m match.MAC
	binary.BigEndian.PutUint16(m[0:], 0x0200|r.low()&0xfc)
	binary.BigEndian.PutUint32(m[2:], r.top())
	return m
}

// in is an address of a prefix.
func (r random) in(p netip.Prefix) match.Addr {
	b := p.Addr().As16()
	bits := p.Bits() + 128 - p.Addr().BitLen()
	host := uint32(1)<<max(0, min(32, 128-bits)) - 1
	if 128-bits >= 32 {
		host = 1<<32 - 1
	}
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])&^host|r.top()&host)
	return match.AddrFrom(netip.AddrFrom16(b))
}

// attack makes the frames of one attack.
type attack struct {
	make   []func(a *attack, buf []byte, r random) []byte
	eth    packet.Ether // from the rogue to its gateway
	source match.Addr
	own6   match.Addr
	target match.Addr   // of prefix
	prefix netip.Prefix // of destinations; a single address makes the last 16 bits change
}

const attackRoom = 2048

var (
	broadcast = match.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	forged    = netip.MustParsePrefix("11.0.0.0/8") // nobody's here
	payload   = make([]byte, 1472)
)

func newAttack(mode Mode, srcMAC, dstMAC net.HardwareAddr, src, own6 netip.Addr, target netip.Prefix) (*attack, error) {
	a := &attack{source: match.AddrFrom(src), own6: match.AddrFrom(own6), target: match.AddrFrom(target.Addr()), prefix: target.Masked()}
	if !src.Is4() || !target.Addr().Is4() || len(srcMAC) != 6 || len(dstMAC) != 6 {
		return nil, fmt.Errorf("mode %s: from %s %s to %s %s: want IPv4 and Ethernet", mode, srcMAC, src, dstMAC, target)
	}
	copy(a.eth.Src[:], srcMAC)
	copy(a.eth.Dst[:], dstMAC)
	for _, m := range attackModes {
		if m.mode == mode || mode == ModeMixed {
			a.make = append(a.make, m.frame)
		}
	}
	if len(a.make) == 0 {
		return nil, fmt.Errorf("flood mode %q: want one of %v", mode, Modes())
	}
	return a, nil
}

func (a *attack) room() []byte { return make([]byte, attackRoom) }

func (a *attack) put(buf []byte, i uint32) int {
	return len(a.make[int(i)%len(a.make)](a, buf[:0], randomOf(i)))
}

func (a *attack) udp(buf []byte, eth packet.Ether, ip packet.IP, r random, n int) []byte {
	return packet.BuildUDP(buf, eth, ip, r.low(), r.high(), payload[:n])
}

func (a *attack) sources(buf []byte, r random) []byte {
	return a.udp(buf, a.eth, packet.IP{Src: r.in(forged), Dst: a.target}, r, 18)
}

func (a *attack) macs(buf []byte, r random) []byte {
	return a.udp(buf, packet.Ether{Src: r.mac(), Dst: a.eth.Dst}, packet.IP{Src: a.source, Dst: a.target}, r, 18)
}

func (a *attack) unknown(buf []byte, r random) []byte {
	other := randomOf(uint32(r) ^ 0x5bd1e995)
	return a.udp(buf, packet.Ether{Src: r.mac(), Dst: other.mac()}, packet.IP{Src: a.source, Dst: a.target}, r, 18)
}

func (a *attack) arp(buf []byte, r random) []byte {
	return packet.BuildARPRequest(buf, a.eth.Src, a.source, r.in(netip.PrefixFrom(a.source.Netip(), 16)))
}

func (a *attack) nd(buf []byte, r random) []byte {
	return packet.BuildNeighbourSolicitation(buf, a.eth.Src, a.own6, r.in(netip.PrefixFrom(a.own6.Netip(), 64)))
}

func (a *attack) storm(buf []byte, r random) []byte {
	return a.udp(buf, packet.Ether{Src: a.eth.Src, Dst: broadcast}, packet.IP{Src: a.source, Dst: match.AddrFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}))}, r, 18)
}

func (a *attack) fragments(buf []byte, r random) []byte {
	buf = a.udp(buf, a.eth, packet.IP{Src: a.source, Dst: a.target, ID: r.low()}, r, 24)
	ip := buf[packet.EthLen : packet.EthLen+20]
	if r.top()&1 == 0 {
		ip[6] = 0x20 // the first one, more follow
	} else {
		ip[6], ip[7] = byte(r.high()>>8)&0x1f, byte(r.high())|1 // a later one
	}
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^uint16(fold(sum16(ip))))
	return buf
}

// dhcp is DHCPDISCOVER (RFC 2131) of a client that has the rogue's MAC address on the wire, and another in the message.
func (a *attack) dhcp(buf []byte, r random) []byte {
	var msg [248]byte
	msg[0], msg[1], msg[2] = 1, 1, 6 // BOOTREQUEST, Ethernet
	binary.BigEndian.PutUint32(msg[4:], r.top())
	mac := r.mac()
	copy(msg[28:], mac[:])
	copy(msg[236:], []byte{0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255}) // magic cookie, message type DISCOVER, end
	return packet.BuildUDP(buf, packet.Ether{Src: a.eth.Src, Dst: broadcast}, packet.IP{
		Src: match.AddrFrom(netip.IPv4Unspecified()), Dst: match.AddrFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255})),
	}, 68, 67, msg[:])
}

func (a *attack) ttl(buf []byte, r random) []byte {
	return a.udp(buf, a.eth, packet.IP{Src: a.source, Dst: a.target, TTL: 1}, r, 18)
}

func (a *attack) expensive(buf []byte, r random) []byte {
	return a.udp(buf, a.eth, packet.IP{Src: a.source, Dst: r.in(a.prefix)}, r, len(payload))
}

// tuples follow the target's bits up to one that differs, in each field at another place: rules on prefixes need another mask for each.
func (a *attack) tuples(buf []byte, r random) []byte {
	differ := func(bits int) (bit, rest uint32) {
		at := int(r.top()>>8) % bits
		r = random(uint64(r)>>7 | uint64(r)<<57)
		return 1 << at, 1<<at - 1
	}
	var port [2]uint16
	for i := range port {
		bit, rest := differ(16)
		port[i] = uint16(0x8000 ^ bit | uint32(r.low())&rest)
	}
	bit, rest := differ(max(1, 32-a.prefix.Bits()))
	b := a.prefix.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])^bit|r.top()&rest)
	return packet.BuildUDP(buf, a.eth, packet.IP{Src: a.source, Dst: match.AddrFrom(netip.AddrFrom4(b))}, port[0], port[1], payload[:18])
}

// sizes are runts, and giants: as long as the interface lets pass, or that only say so.
func (a *attack) sizes(buf []byte, r random) []byte {
	n := 18
	if r.top()&1 == 0 {
		n = len(payload)
	}
	buf = a.udp(buf, a.eth, packet.IP{Src: a.source, Dst: a.target}, r, n)
	ip := buf[packet.EthLen:]
	switch r.top() >> 1 & 7 {
	case 0:
		return buf[:packet.EthLen+int(r.low()%28)] // cut within the headers
	case 1:
		binary.BigEndian.PutUint16(ip[2:], 0xffff) // 64 KiB, it says
	case 2:
		ip[0] = 0x4f // of options that are payload
	case 3:
		ip[0] = 0x42 // a header shorter than a header
	case 4:
		binary.BigEndian.PutUint16(ip[24:], 0xffff) // UDP's own length
	case 5:
		binary.BigEndian.PutUint16(buf[12:], 0x86dd) // IPv4 that says IPv6
	case 6:
		binary.BigEndian.PutUint16(buf[12:], uint16(n)) // a length, IEEE 802.3
	}
	return buf
}
