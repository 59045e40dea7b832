package interop

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// pkt is a packet that both sides can be told about.
type pkt struct {
	at       *vm // by whose port it enters
	kind     string
	eth      packet.Ether
	src, dst netip.Addr // of IP; sender and target of ARP
	target   netip.Addr // ns
	ttl      uint8
	sport    uint16
	dport    uint16
	quoted   *pkt // icmp error: what it is about

	// What connection tracking has seen: "new", "est", "est,rpl", "rel,rpl".
	ct    string
	began *vm // the connection that an answer belongs to
}

func addr(a netip.Addr) match.Addr { return match.AddrFrom(a) }

// frame is the packet on the wire.
func (p *pkt) frame() []byte {
	if p.kind == "arp" || p.kind == "arpreply" {
		a := packet.ARP{Op: packet.ARPRequest, SHA: p.eth.Src, SPA: addr(p.src), TPA: addr(p.dst)}
		if p.kind == "arpreply" {
			a.Op, a.THA = packet.ARPReply, p.eth.Dst
		}
		return packet.BuildARP(nil, p.eth, a)
	}
	if p.kind == "other" {
		return append(append(append([]byte{}, p.eth.Dst[:]...), p.eth.Src[:]...), append([]byte{0x88, 0xb5}, make([]byte, 46)...)...)
	}
	ip := packet.IP{Src: addr(p.src), Dst: addr(p.dst), TTL: p.ttl}
	switch p.kind {
	case "udp":
		return packet.BuildUDP(nil, p.eth, ip, p.sport, p.dport, []byte("interop"))
	case "tcp":
		flags := uint8(packet.FlagSYN)
		if p.ct != "new" {
			flags = packet.FlagACK
		}
		return packet.BuildTCP(nil, p.eth, ip, packet.TCP{SrcPort: p.sport, DstPort: p.dport, Flags: flags}, nil)
	case "echo", "echoreply":
		typ := map[bool]uint8{true: packet.ICMPEchoRequest, false: packet.ICMPv6EchoRequest}[p.src.Is4()]
		if p.kind == "echoreply" {
			typ = map[bool]uint8{true: packet.ICMPEchoReply, false: packet.ICMPv6EchoReply}[p.src.Is4()]
		}
		return packet.BuildICMP(nil, p.eth, ip, packet.ICMP{Type: typ, Rest: uint32(p.sport)<<16 | 1}, nil)
	case "ns":
		return packet.BuildND(nil, p.eth, ip.Src, ip.Dst, packet.ND{Target: addr(p.target), LLA: p.eth.Src, HasLLA: true})
	case "error":
		typ, code := uint8(packet.ICMPUnreachable), uint8(packet.ICMPCodePort)
		if p.src.Is6() {
			typ, code = packet.ICMPv6Unreachable, packet.ICMPv6CodePort
		}
		q := p.quoted.frame()[packet.EthLen:]
		return packet.BuildICMP(nil, p.eth, ip, packet.ICMP{Type: typ, Code: code}, q)
	}
	panic("no kind " + p.kind)
}

// expr is the packet as ovn-trace reads it.
func (p *pkt) expr() string {
	var b strings.Builder
	f := func(format string, a ...any) { fmt.Fprintf(&b, " && "+format, a...) }
	fmt.Fprintf(&b, "inport == %q && eth.src == %s && eth.dst == %s", p.at.name, p.eth.Src, p.eth.Dst)
	if p.eth.VLAN != 0 {
		f("vlan.vid == %d", p.eth.VLAN&0xfff)
	}
	switch p.kind {
	case "arp", "arpreply":
		op, tha := 1, match.MAC{}
		if p.kind == "arpreply" {
			op, tha = 2, p.eth.Dst
		}
		f("arp.op == %d && arp.spa == %s && arp.tpa == %s && arp.sha == %s && arp.tha == %s", op, p.src, p.dst, p.eth.Src, tha)
		return b.String()
	case "other":
		f("eth.type == 0x88b5")
		return b.String()
	}
	family, icmp := 4, "icmp4"
	if p.src.Is6() {
		family, icmp = 6, "icmp6"
	}
	f("ip%d.src == %s && ip%d.dst == %s && ip.ttl == %d", family, p.src, family, p.dst, p.ttl)
	switch p.kind {
	case "udp", "tcp":
		f("%s.src == %d && %s.dst == %d", p.kind, p.sport, p.kind, p.dport)
	case "echo", "echoreply":
		typ := map[string]int{"echo4": 8, "echoreply4": 0, "echo6": 128, "echoreply6": 129}[fmt.Sprint(p.kind, family)]
		f("%s.type == %d && %s.code == 0", icmp, typ, icmp)
	case "ns":
		f("nd_ns && nd.target == %s && nd.sll == %s", p.target, p.eth.Src)
	case "error":
		if family == 4 {
			f("icmp4.type == 3 && icmp4.code == 3")
		} else {
			f("icmp6.type == 1 && icmp6.code == 4")
		}
	}
	return b.String()
}

func (p *pkt) String() string { return p.expr() + " [ct " + p.ct + "]" }

// packet makes a new one that a VM sends.
func (g *generator) packet(n *network) *pkt {
	v := pick(g, n.vms())
	p := &pkt{at: v, ttl: 64, ct: "new", sport: pick(g, ports), dport: pick(g, ports)}
	p.eth.Src = v.mac
	six := g.often(40)
	p.src = v.v4
	if six {
		p.src = v.v6
	}
	switch g.IntN(20) {
	case 0, 1, 2:
		p.kind = "arp"
		p.src = v.v4
		p.eth.Dst = match.Broadcast
		p.dst = g.destination(n, v, false)
		if g.often(15) {
			p.kind, p.eth.Dst = "arpreply", g.linkMAC(v.on)
		}
		if g.often(10) {
			p.src = p.dst
		}
		g.spoof(n, p)
		return p
	case 3, 4:
		return g.solicitation(n, p)
	case 5:
		p.kind, p.eth.Dst = "other", g.linkMAC(v.on)
		g.spoof(n, p)
		return p
	}
	p.kind = pick(g, []string{"udp", "udp", "tcp", "tcp", "echo", "echo", "echoreply"})
	p.dst = g.destination(n, v, six)
	p.eth.Dst = g.nextHop(v, p.dst)
	if g.often(12) {
		p.ttl = pick(g, []uint8{1, 1, 2, 3, 255})
	}
	if g.often(5) {
		p.eth.Dst = g.linkMAC(v.on)
	}
	if g.often(2) {
		p.eth.VLAN = 5 | match.VLANPresent
	}
	g.spoof(n, p)
	return p
}

func (g *generator) solicitation(n *network, p *pkt) *pkt {
	p.kind, p.ttl, p.src = "ns", 255, p.at.v6
	p.target = pick(g, p.at.on.vms).v6
	if g.often(25) {
		p.target = nth(p.at.on.net6, 200)
	}
	group, mac := packet.SolicitedNode(addr(p.target))
	p.dst, p.eth.Dst = group.Netip(), mac
	g.spoof(n, p)
	return p
}

// spoof has some packets lie about who sends them.
func (g *generator) spoof(n *network, p *pkt) {
	if g.often(4) {
		p.eth.Src = pick(g, append([]match.MAC{{0x02, 0xee, 0, 0, 0, 1}}, pick(g, p.at.on.vms).mac))
	}
	if !g.often(5) || !p.src.IsValid() {
		return
	}
	if p.src.Is4() {
		p.src = pick(g, []netip.Addr{nth(p.at.on.net4, 66), netip.MustParseAddr("198.51.100.7"), pick(g, p.at.on.vms).v4})
	} else {
		p.src = pick(g, []netip.Addr{nth(p.at.on.net6, 66), netip.MustParseAddr("2001:db8::7"), pick(g, p.at.on.vms).v6, linkLocal(p.at.mac)})
	}
}

// linkMAC is some MAC address on the switch, or none that is there.
func (g *generator) linkMAC(s *vswitch) match.MAC {
	list := []match.MAC{{0x02, 0xee, 0, 0, 0, 9}, match.Broadcast, {0x01, 0, 0x5e, 0, 0, 9}}
	for _, v := range s.vms {
		list = append(list, v.mac)
	}
	for _, p := range s.rports {
		list = append(list, p.mac)
	}
	return pick(g, list)
}

// nextHop is the MAC to which a VM sends what is for dst.
func (g *generator) nextHop(v *vm, dst netip.Addr) match.MAC {
	for _, x := range v.on.vms {
		if x.v4 == dst || x.v6 == dst {
			return x.mac
		}
	}
	if (v.on.net4.Contains(dst) || v.on.net6.Contains(dst)) && len(v.on.rports) > 0 {
		for _, p := range v.on.rports {
			if p.v4() == dst || p.v6() == dst {
				return p.mac
			}
		}
		if g.often(50) {
			return match.MAC{0x02, 0xee, 0, 0, 0, 9}
		}
	}
	return pick(g, v.on.rports).mac
}

// destination is an address that a VM may want to reach.
func (g *generator) destination(n *network, v *vm, six bool) netip.Addr {
	of := func(four, sixth netip.Addr) netip.Addr {
		if six {
			return sixth
		}
		return four
	}
	other := pick(g, n.vms())
	switch g.IntN(20) {
	case 0, 1, 2, 3:
		o := pick(g, v.on.vms)
		return of(o.v4, o.v6)
	case 4, 5:
		if rs := n.rports(); len(rs) > 0 {
			p := pick(g, rs)
			return of(p.v4(), p.v6())
		}
	case 6:
		return of(nth(other.on.net4, 200), nth(other.on.net6, 200))
	case 7, 8:
		return of(netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2001:db8::8"))
	case 9, 10, 11:
		for _, r := range n.routers {
			if len(r.fips) > 0 && !six {
				return pick(g, r.fips).floating
			}
		}
	case 12:
		return of(pick(g, []netip.Addr{netip.MustParseAddr("172.16.5.9"), netip.MustParseAddr("172.20.0.1")}), netip.MustParseAddr("fd55::1"))
	case 13:
		return of(netip.MustParseAddr("100.64.9.9"), netip.MustParseAddr("fd44::1"))
	}
	return of(other.v4, other.v6)
}
