package packet

import (
	"bytes"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// decode reads a frame with an independent implementation, which must understand all of it.
func decode(t testing.TB, frame []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("gopacket: %v\n% x", e.Error(), frame)
	}
	if err, bad := verify(p); err != nil || len(bad) > 0 {
		t.Fatalf("gopacket: checksums %v %v\n% x", err, bad, frame)
	}
	return p
}

// verify checks every checksum of p that gopacket knows.
func verify(p gopacket.Packet) (error, []gopacket.ChecksumMismatch) {
	for _, l := range p.Layers() {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				return err, nil
			}
		}
	}
	return p.VerifyChecksums()
}

func layer[T gopacket.Layer](t testing.TB, p gopacket.Packet) T {
	t.Helper()
	for _, l := range p.Layers() {
		if x, ok := l.(T); ok {
			return x
		}
	}
	var zero T
	t.Fatalf("no %T in %v", zero, p)
	return zero
}

func TestOracleARP(t *testing.T) {
	req := BuildARPRequest(nil, macA, ip4A, ip4B)
	a := layer[*layers.ARP](t, decode(t, req))
	if a.Operation != 1 || !bytes.Equal(a.SourceHwAddress, macA[:]) || !net.IP(a.DstProtAddress).Equal(net.IP{10, 0, 0, 2}) {
		t.Errorf("%+v", a)
	}
	v := mustParse(t, req)
	out := BuildARPReply(nil, &v, macB)
	if r := mustParse(t, out); BuildARPReply(nil, &r, macA) != nil {
		t.Error("a reply was answered")
	}
	p := decode(t, out)
	a = layer[*layers.ARP](t, p)
	if a.Operation != 2 || !bytes.Equal(a.SourceHwAddress, macB[:]) || !bytes.Equal(a.DstHwAddress, macA[:]) ||
		!net.IP(a.SourceProtAddress).Equal(net.IP{10, 0, 0, 2}) || !net.IP(a.DstProtAddress).Equal(net.IP{10, 0, 0, 1}) {
		t.Errorf("%+v", a)
	}
	if e := layer[*layers.Ethernet](t, p); !bytes.Equal(e.DstMAC, macA[:]) {
		t.Errorf("%+v", e)
	}
	g := mustParse(t, BuildGratuitousARP(nil, macA, ip4A))
	if q, ok := g.ARP(); !ok || q.SPA != ip4A || q.TPA != ip4A || q.Op != ARPRequest || g.Key.EthDst != match.Broadcast {
		t.Errorf("%+v", q)
	}
	notARP := mustParse(t, udp4())
	if out := BuildARPReply(nil, &notARP, macB); out != nil {
		t.Error("reply to what is no ARP")
	}
}

func TestOracleFrames(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := genFrame(rt)
		v := mustParse(t, f)
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if d, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok != (v.Key.VLAN != 0) {
			rt.Fatalf("tag: %v, key %#x", d, v.Key.VLAN)
		}
		if ip, ok := p.NetworkLayer().(*layers.IPv4); ok {
			if Checksum(f[v.L3:v.L3+IPv4Len]) != 0 || ip.TTL != v.TTL || ip.TOS != v.Key.TOS || Addr4(ip.SrcIP) != v.Key.Src || Addr4(ip.DstIP) != v.Key.Dst {
				rt.Fatalf("%+v %+v", ip, v)
			}
		} else if ip, ok := p.NetworkLayer().(*layers.IPv6); !ok || ip.HopLimit != v.TTL || ip.TrafficClass != v.Key.TOS || match.Addr(ip.SrcIP) != v.Key.Src || match.Addr(ip.DstIP) != v.Key.Dst {
			rt.Fatalf("%+v %+v", ip, v)
		}
		var src, dst uint16
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			src, dst = uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.UDP:
			src, dst = uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.SCTP:
			src, dst = uint16(l.SrcPort), uint16(l.DstPort)
		default:
			return
		}
		if src != v.Key.SrcPort || dst != v.Key.DstPort {
			rt.Fatalf("%d > %d: %+v", src, dst, v.Key)
		}
		if err, bad := verify(p); err != nil || len(bad) > 0 {
			rt.Fatal(err, bad)
		}
	})
}

func TestOracleEchoReply(t *testing.T) {
	for _, ip := range []IP{{Src: ip4A, Dst: ip4B, TOS: 4}, {Src: ip6A, Dst: ip6B, TOS: 4}} {
		v := mustParse(t, BuildEchoRequest(nil, ethA, ip, 7, 9, []byte("ping!")))
		out := BuildEchoReply(nil, &v)
		p := decode(t, out)
		r := mustParse(t, out)
		if r.Key.Src != ip.Dst || r.Key.Dst != ip.Src || r.Key.EthDst != macA || r.Key.TOS != 4 || r.TTL != 64 {
			t.Errorf("%+v", r.Key)
		}
		if m, _ := r.ICMP(); m.ID() != 7 || m.Seq() != 9 {
			t.Errorf("%+v", m)
		}
		if r.Is4() {
			if ic := layer[*layers.ICMPv4](t, p); ic.TypeCode.Type() != layers.ICMPv4TypeEchoReply || string(ic.Payload) != "ping!" || ic.Id != 7 {
				t.Errorf("%+v", ic)
			}
		} else if ic := layer[*layers.ICMPv6Echo](t, p); ic.Identifier != 7 || ic.SeqNumber != 9 || string(r.Payload()) != "ping!" {
			t.Errorf("%+v", ic)
		}
		if again := BuildEchoReply(nil, &r); again != nil {
			t.Error("a reply was answered")
		}
	}
}

func TestOracleErrors(t *testing.T) {
	big := make([]byte, 1400)
	v4 := mustParse(t, BuildUDP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 5, 6, big))
	v6 := mustParse(t, BuildUDP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, 5, 6, big))
	r4, r6 := addr("10.0.0.254"), addr("2001:db8::fe")

	out := BuildTooBig(nil, &v4, r4, 1450)
	ic := layer[*layers.ICMPv4](t, decode(t, out))
	if ic.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || ic.Seq != 1450 || len(out) != EthLen+576 || !bytes.Equal(ic.Payload, v4.Packet()[:548]) {
		t.Errorf("%+v, %d bytes", ic, len(out))
	}
	e := mustParse(t, out)
	if e.Key.Dst != ip4A || e.Key.Src != r4 || e.Key.EthDst != macA || e.Key.TOS != 0xc0 || e.MayCauseError() {
		t.Errorf("%+v", e.Key)
	}

	out = BuildTooBig(nil, &v6, r6, 1400)
	decode(t, out)
	e = mustParse(t, out)
	if m, _ := e.ICMP(); m != (ICMP{Type: 2, Rest: 1400}) || len(out) != EthLen+1280 || !bytes.Equal(e.Payload(), v6.Packet()[:1232]) {
		t.Errorf("%+v, %d bytes", m, len(out))
	}

	for _, v := range []*View{&v4, &v6} {
		src := r4
		if v.Is6() {
			src = r6
		}
		out := BuildTimeExceeded(nil, v, src)
		decode(t, out)
		e := mustParse(t, out)
		q, ok := e.Quoted()
		if !ok || q.Key.Src != v.Key.Src || q.Key.Dst != v.Key.Dst || q.Key.Proto != ProtoUDP || q.Key.SrcPort != 5 || q.Key.DstPort != 6 || q.L3Len != v.L3Len || q.L4 == 0 {
			t.Errorf("%v %+v", ok, q)
		}
		if !v.MayCauseError() {
			t.Error("a plain datagram may cause an error")
		}
	}
}

func TestMayNotCauseError(t *testing.T) {
	group := ethA
	group.Dst = match.Broadcast
	for name, f := range map[string][]byte{
		"arp":             BuildARPRequest(nil, macA, ip4A, ip4B),
		"later fragment":  laterFragment(),
		"link broadcast":  BuildUDP(nil, group, IP{Src: ip4A, Dst: ip4B}, 1, 2, nil),
		"multicast":       BuildUDP(nil, ethA, IP{Src: ip4A, Dst: addr("224.0.0.5")}, 1, 2, nil),
		"multicast v6":    BuildUDP(nil, ethA, IP{Src: ip6A, Dst: addr("ff02::1")}, 1, 2, nil),
		"from 0.0.0.0":    BuildUDP(nil, ethA, IP{Src: addr("0.0.0.0"), Dst: ip4B}, 1, 2, nil),
		"from ::":         BuildUDP(nil, ethA, IP{Dst: ip6B}, 1, 2, nil),
		"from loopback":   BuildUDP(nil, ethA, IP{Src: addr("127.0.0.1"), Dst: ip4B}, 1, 2, nil),
		"ICMPv6 redirect": BuildICMP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, ICMP{Type: 137}, nil),
	} {
		if v := mustParse(t, f); v.MayCauseError() {
			t.Error(name)
		}
	}
	if v := mustParse(t, BuildEchoRequest(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1, 2, nil)); !v.MayCauseError() {
		t.Error("an echo request may cause an error")
	}
}

func TestOracleND(t *testing.T) {
	out := BuildNeighbourSolicitation(nil, macA, ip6A, ip6B)
	p := decode(t, out)
	ns := layer[*layers.ICMPv6NeighborSolicitation](t, p)
	if !ns.TargetAddress.Equal(net.IP(ip6B[:])) || len(ns.Options) != 1 || !bytes.Equal(ns.Options[0].Data, macA[:]) {
		t.Errorf("%+v", ns)
	}
	v := mustParse(t, out)
	if v.Key.EthDst != (match.MAC{0x33, 0x33, 0xff, 0, 0, 2}) || v.Key.Dst != addr("ff02::1:ff00:2") || v.TTL != 255 {
		t.Errorf("%+v", v.Key)
	}
	out = BuildNeighbourAdvertisement(nil, &v, macB, NDRouter|NDOverride)
	na := layer[*layers.ICMPv6NeighborAdvertisement](t, decode(t, out))
	if !na.Router() || !na.Solicited() || !na.Override() || !na.TargetAddress.Equal(net.IP(ip6B[:])) || !bytes.Equal(na.Options[0].Data, macB[:]) {
		t.Errorf("%+v", na)
	}
	a := mustParse(t, out)
	if n, ok := a.ND(); !ok || !n.Advert || n.LLA != macB || !n.HasLLA || n.Target != ip6B || a.Key.Dst != ip6A || a.Key.EthDst != macA {
		t.Errorf("%+v %+v", n, a.Key)
	}

	dad := mustParse(t, BuildNeighbourSolicitation(nil, macA, match.Addr{}, ip6B))
	if n, ok := dad.ND(); !ok || n.HasLLA {
		t.Errorf("%+v", n)
	}
	out = BuildNeighbourAdvertisement(nil, &dad, macB, 0)
	decode(t, out)
	a = mustParse(t, out)
	if n, ok := a.ND(); !ok || n.Flags != 0 || a.Key.Dst != addr("ff02::1") {
		t.Errorf("%+v %+v", n, a.Key)
	}
	a = mustParse(t, BuildUnsolicitedAdvertisement(nil, macA, ip6A, NDOverride))
	if n, ok := a.ND(); !ok || n.Flags != NDOverride || n.Target != ip6A {
		t.Errorf("%+v", n)
	}
}

func TestNDRejects(t *testing.T) {
	good := BuildNeighbourSolicitation(nil, macA, ip6A, ip6B)
	const opt = EthLen + IPv6Len + ndLen
	for name, f := range map[string][]byte{
		"hop limit 254":       with(good, 21, 254),
		"code 1":              with(good, 55, 1),
		"multicast target":    with(good, 62, 0xff),
		"option of length 0":  with(good, opt+1, 0),
		"option beyond end":   with(good, opt+1, 2),
		"echo":                with(good, 54, 128),
		"DAD with an address": BuildND(nil, ethA, match.Addr{}, ip6B, ND{Target: ip6B, LLA: macA, HasLLA: true}),
		"cut":                 BuildICMP(nil, ethA, IP{Src: ip6A, Dst: ip6B, TTL: 255}, ICMP{Type: 135}, make([]byte, 15)),
	} {
		v := mustParse(t, f)
		if n, ok := v.ND(); ok {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

func TestBuildersDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 2048)
	req4 := mustParse(t, BuildEchoRequest(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1, 2, []byte("abc")))
	arp := mustParse(t, BuildARPRequest(nil, macA, ip4A, ip4B))
	ns := mustParse(t, BuildNeighbourSolicitation(nil, macA, ip6A, ip6B))
	data := []byte("data")
	for name, f := range map[string]func() []byte{
		"udp":   func() []byte { return BuildUDP(buf, ethA, IP{Src: ip4A, Dst: ip4B}, 1, 2, data) },
		"tcp6":  func() []byte { return BuildTCP(buf, ethA, IP{Src: ip6A, Dst: ip6B}, TCP{}, data) },
		"arp":   func() []byte { return BuildARPReply(buf, &arp, macB) },
		"echo":  func() []byte { return BuildEchoReply(buf, &req4) },
		"error": func() []byte { return BuildTimeExceeded(buf, &req4, ip4B) },
		"ns":    func() []byte { return BuildNeighbourSolicitation(buf, macA, ip6A, ip6B) },
		"na":    func() []byte { return BuildNeighbourAdvertisement(buf, &ns, macB, 0) },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if len(f()) == 0 {
				t.Fatal("nothing built")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
