package pathtest

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// Injection is a packet and the port whose ingress (or egress) it starts at.
type Injection struct {
	Port   uuid.UUID
	Egress bool
	View   packet.View
	GSO    packet.GSO
}

// Inject reads one packet:
//
//	PORT [egress] KIND eth=SRC>DST [vlan=TCI] ...
//
// where a MAC is an address, "broadcast", or the name of the port that has it, and KIND is
//
//	arp   op=request|reply ip=SENDER>TARGET [sha=MAC]
//	udp   ip=SRC>DST ports=S>D [ttl=N] [len=N] [tos=N]
//	tcp   the same, and [gso=SIZE] [flags=SAFRPU], S when absent
//	sctp  ip=SRC>DST ports=S>D
//	ip    ip=SRC>DST proto=N [len=N]      any other protocol
//	echo  ip=SRC>DST [id=N] [ttl=N] [len=N]
//	error ip=SRC>DST [quotes=S>D ports=S>D]  an ICMP error that quotes a UDP packet; from DST to SRC when absent
//	icmp  ip=SRC>DST type=N [code=N] [id=N]  any other message of either family
//	ns    ip=SRC>DST target=ADDR [lla=MAC]
//	na    ip=SRC>DST target=ADDR [lla=MAC]
//	dhcp, dhcp6, rs, ra                   see dhcp.go
//	other type=N                          any EtherType, 46 bytes of payload
//
// IP packets also take frag=first|later [datagram=N], and IPv6 ones ext: a hop-by-hop options header.
func (t *Topology) Inject(line string) (in Injection, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%q: %v", line, r)
		}
	}()
	w := words{t: t, get: map[string]string{}}
	f := strings.Fields(line)
	in.Port, f = t.port(f[0]).ID, f[1:]
	if f[0] == "egress" {
		in.Egress, f = true, f[1:]
	}
	for _, x := range f[1:] {
		k, v, _ := strings.Cut(x, "=")
		w.get[k] = v
	}
	frame := w.fragment(w.frame(f[0]))
	v, why := packet.Parse(frame, 1)
	if why != drop.None {
		return in, fmt.Errorf("%q: %s", line, why)
	}
	in.View, in.GSO.Size = v, uint16(w.number("gso", 0))
	return in, nil
}

// MustInject is Inject for lines that are known to be right.
func (t *Topology) MustInject(line string) Injection {
	in, err := t.Inject(line)
	if err != nil {
		panic(err)
	}
	return in
}

// words are the key=value pairs of a packet.
type words struct {
	t   *Topology
	get map[string]string
}

func (w words) pair(key string) (src, dst string) {
	src, dst, ok := strings.Cut(w.get[key], ">")
	if !ok {
		panic("want " + key + "=A>B")
	}
	return src, dst
}

func (w words) number(key string, otherwise int) int {
	if s, ok := w.get[key]; ok {
		return number(s)
	}
	return otherwise
}

func (w words) mac(key string, otherwise match.MAC) match.MAC {
	if s, ok := w.get[key]; ok {
		return w.t.MAC(s)
	}
	return otherwise
}

func (w words) eth() packet.Ether {
	src, dst := w.pair("eth")
	e := packet.Ether{Src: w.t.MAC(src), Dst: w.t.MAC(dst)}
	if _, ok := w.get["vlan"]; ok {
		e.VLAN = uint16(w.number("vlan", 0)) | match.VLANPresent
	}
	return e
}

func (w words) ip() packet.IP {
	src, dst := w.pair("ip")
	return packet.IP{Src: addr(src), Dst: addr(dst), TTL: uint8(w.number("ttl", 64)), TOS: uint8(w.number("tos", 0))}
}

func (w words) ports() (src, dst uint16) {
	s, d := w.pair("ports")
	return uint16(number(s)), uint16(number(d))
}

func (w words) frame(kind string) []byte {
	eth := w.eth()
	payload := make([]byte, w.number("len", 0))
	switch kind {
	case "arp":
		ip := w.ip()
		a := packet.ARP{Op: packet.ARPRequest, SHA: w.mac("sha", eth.Src), SPA: ip.Src, TPA: ip.Dst}
		if w.get["op"] == "reply" {
			a.Op, a.THA = packet.ARPReply, eth.Dst
		}
		return packet.BuildARP(nil, eth, a)
	case "udp":
		s, d := w.ports()
		return packet.BuildUDP(nil, eth, w.ip(), s, d, payload)
	case "tcp":
		s, d := w.ports()
		return packet.BuildTCP(nil, eth, w.ip(), packet.TCP{SrcPort: s, DstPort: d, Flags: w.flags()}, payload)
	case "sctp":
		s, d := w.ports()
		return packet.BuildSCTP(nil, eth, w.ip(), s, d, 1, payload)
	case "ip":
		return packet.BuildIP(nil, eth, w.ip(), uint8(w.number("proto", 0)), payload)
	case "echo":
		return packet.BuildEchoRequest(nil, eth, w.ip(), uint16(w.number("id", 1)), 1, payload)
	case "icmp":
		return packet.BuildICMP(nil, eth, w.ip(), packet.ICMP{Type: uint8(w.number("type", 0)), Code: uint8(w.number("code", 0)), Rest: uint32(w.number("id", 0)) << 16}, payload)
	case "error":
		ip := w.ip()
		about, sport, dport := packet.IP{Src: ip.Dst, Dst: ip.Src}, uint16(1), uint16(2)
		if _, ok := w.get["quotes"]; ok {
			src, dst := w.pair("quotes")
			about.Src, about.Dst = addr(src), addr(dst)
			sport, dport = w.ports()
		}
		quoted, _ := packet.Parse(packet.BuildUDP(nil, eth.Reverse(), about, sport, dport, nil), 1)
		return packet.BuildTimeExceeded(nil, &quoted, ip.Src)
	case "ns", "na":
		ip := w.ip()
		n := packet.ND{Advert: kind == "na", Target: addr(w.get["target"]), LLA: w.mac("lla", match.MAC{})}
		n.HasLLA = n.LLA != match.MAC{}
		return packet.BuildND(nil, eth, ip.Src, ip.Dst, n)
	case "dhcp":
		return packet.BuildUDP(nil, eth, w.ip(), uint16(w.number("from", 68)), 67, w.dhcp())
	case "dhcp6":
		return packet.BuildUDP(nil, eth, w.ip(), 546, 547, w.dhcp6())
	case "rs", "ra":
		return w.routerDiscovery(kind, eth)
	case "other":
		typ := w.number("type", 0x88b5)
		return append(append(append(append([]byte{}, eth.Dst[:]...), eth.Src[:]...), byte(typ>>8), byte(typ)), make([]byte, 46)...)
	}
	panic("unknown kind " + kind)
}
