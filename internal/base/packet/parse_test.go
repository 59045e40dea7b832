package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

func udp4() []byte { return BuildUDP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1000, 2000, []byte("hello")) }

// with returns a copy of b with byte i set to x.
func with(b []byte, i int, x byte) []byte {
	b = bytes.Clone(b)
	b[i] = x
	return b
}

// ext6 builds an IPv6 packet whose payload begins with extension headers.
func ext6(first uint8, payload ...byte) []byte {
	return BuildIP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, first, payload)
}

func cat(bs ...[]byte) []byte { return bytes.Join(bs, nil) }

func TestParseKey(t *testing.T) {
	udpHeader := []byte{0x03, 0xe8, 0x07, 0xd0, 0, 8, 0, 0}
	key := func(f func(k *match.Key)) match.Key {
		k := match.Key{InPort: 7, EthDst: macB, EthSrc: macA, EthType: EthTypeIPv4, Src: ip4A, Dst: ip4B}
		f(&k)
		return k
	}
	key6 := func(f func(k *match.Key)) match.Key {
		return key(func(k *match.Key) { k.EthType, k.Src, k.Dst = EthTypeIPv6, ip6A, ip6B; f(k) })
	}
	tagged := ethA
	tagged.VLAN = 0xa064 | match.VLANPresent
	for _, c := range []struct {
		name  string
		frame []byte
		want  match.Key
	}{
		{"udp4", udp4(), key(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoUDP, 1000, 2000 })},
		{"padded", append(udp4(), 0, 0, 0, 0), key(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoUDP, 1000, 2000 })},
		{"tagged", BuildUDP(nil, tagged, IP{Src: ip4A, Dst: ip4B, TOS: 0x2e}, 1000, 2000, nil), key(func(k *match.Key) {
			k.VLAN, k.TOS, k.Proto, k.SrcPort, k.DstPort = 0xb064, 0x2e, ProtoUDP, 1000, 2000
		})},
		{"tagged 802.1ad", with(with(BuildUDP(nil, tagged, IP{Src: ip4A, Dst: ip4B}, 1000, 2000, nil), 12, 0x88), 13, 0xa8), key(func(k *match.Key) {
			k.VLAN, k.Proto, k.SrcPort, k.DstPort = 0xb064, ProtoUDP, 1000, 2000
		})},
		{"double tagged", cat(udp4()[:12], []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6}, udp4()[12:]), match.Key{InPort: 7, EthDst: macB, EthSrc: macA, VLAN: 0x1005, EthType: EthTypeVLAN}},
		{"echo", BuildEchoRequest(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 77, 1, nil), key(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoICMP, 8<<8, 77 })},
		{"echo6", BuildEchoRequest(nil, ethA, IP{Src: ip6A, Dst: ip6B}, 77, 1, nil), key6(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoICMPv6, 128<<8, 77 })},
		{"icmp error", BuildICMP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ICMP{Type: 3, Code: 4, Rest: 0x00050006}, nil), key(func(k *match.Key) { k.Proto, k.SrcPort = ProtoICMP, 3<<8|4 })},
		{"icmpv6 in v4", BuildIP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ProtoICMPv6, []byte{1}), key(func(k *match.Key) { k.Proto = ProtoICMPv6 })},
		{"arp", BuildARPRequest(nil, macA, ip4A, ip4B), match.Key{InPort: 7, EthDst: match.Broadcast, EthSrc: macA, EthType: EthTypeARP, Proto: 1, Src: ip4A, Dst: ip4B}},
		{"arp opcode over 255", with(BuildARPRequest(nil, macA, ip4A, ip4B), 20, 1), match.Key{InPort: 7, EthDst: match.Broadcast, EthSrc: macA, EthType: EthTypeARP}},
		{"arp not ethernet", with(BuildARPRequest(nil, macA, ip4A, ip4B), 15, 6), match.Key{InPort: 7, EthDst: match.Broadcast, EthSrc: macA, EthType: EthTypeARP}},
		{"first fragment", with(udp4(), 20, 0x20), key(func(k *match.Key) {
			k.Proto, k.SrcPort, k.DstPort, k.Frag = ProtoUDP, 1000, 2000, match.FragFirst
		})},
		{"later fragment", with(udp4(), 21, 1), key(func(k *match.Key) { k.Proto, k.Frag = ProtoUDP, match.FragLater })},
		{"later fragment of 1 byte", laterFragment(), key(func(k *match.Key) { k.Proto, k.Frag = ProtoUDP, match.FragLater })},
		{"802.3", append(udp4()[:12], 0, 3, 0x42, 0x42, 3), match.Key{InPort: 7, EthDst: macB, EthSrc: macA, EthType: 3}},
		{"v6 hop-by-hop, dest opts, udp", ext6(0, cat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, udpHeader)...),
			key6(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoUDP, 1000, 2000 })},
		{"v6 AH", ext6(51, cat([]byte{17, 4}, make([]byte, 22), udpHeader)...), key6(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoUDP, 1000, 2000 })},
		{"v6 first fragment", ext6(44, cat([]byte{17, 0, 0, 1, 0, 0, 0, 9}, udpHeader)...), key6(func(k *match.Key) {
			k.Proto, k.SrcPort, k.DstPort, k.Frag = ProtoUDP, 1000, 2000, match.FragFirst
		})},
		{"v6 atomic fragment", ext6(44, cat([]byte{17, 0, 0, 0, 0, 0, 0, 9}, udpHeader)...), key6(func(k *match.Key) { k.Proto, k.SrcPort, k.DstPort = ProtoUDP, 1000, 2000 })},
		{"v6 later fragment", ext6(44, 60, 0, 0, 8, 0, 0, 0, 9, 1), key6(func(k *match.Key) { k.Proto, k.Frag = 60, match.FragLater })},
		{"v6 no next header", ext6(59), key6(func(k *match.Key) { k.Proto = 59 })},
		{"v6 eight extension headers", ext6(60, cat(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 7), []byte{59, 0, 1, 4, 0, 0, 0, 0})...), key6(func(k *match.Key) { k.Proto = 59 })},
	} {
		if v := mustParse(t, c.frame); v.Key != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, v.Key, c.want)
		}
	}
}

// laterFragment is a later IPv4 fragment too short for a UDP header.
func laterFragment() []byte {
	f := BuildIP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ProtoUDP, []byte{1})
	f[21] = 185
	return f
}

func TestParseMalformed(t *testing.T) {
	u6 := BuildUDP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, 1, 2, nil)
	for name, f := range map[string][]byte{
		"empty":                        {},
		"13 bytes":                     udp4()[:13],
		"tag cut":                      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 1, 8},
		"IPv4 header cut":              udp4()[:33],
		"IPv4 version 5":               with(udp4(), 14, 0x55),
		"IHL 4":                        with(udp4(), 14, 0x44),
		"IHL beyond total":             with(udp4(), 14, 0x4f),
		"total length below header":    with(udp4(), 17, 19),
		"total length 0":               with(udp4(), 17, 0),
		"total length beyond frame":    with(udp4(), 17, 34),
		"UDP cut":                      with(udp4(), 17, 27),
		"TCP cut":                      with(udp4(), 23, 6),
		"SCTP cut":                     BuildIP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ProtoSCTP, make([]byte, 11)),
		"ICMP cut":                     BuildIP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ProtoICMP, make([]byte, 7)),
		"tiny first fragment":          with(BuildIP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ProtoTCP, make([]byte, 8)), 20, 0x20),
		"IPv6 header cut":              u6[:53],
		"IPv6 version 4":               with(u6, 14, 0x40),
		"IPv6 payload beyond frame":    with(u6, 19, 9),
		"IPv6 payload cuts UDP":        with(u6, 19, 7),
		"extension header cut":         ext6(0, 17, 0, 0),
		"extension header beyond":      ext6(0, 17, 1, 0, 0, 0, 0, 0, 0),
		"nine extension headers":       ext6(60, append(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 8), 59, 0, 1, 4, 0, 0, 0, 0)...),
		"jumbogram":                    with(with(u6, 18, 0), 19, 0),
		"ARP cut":                      BuildARPRequest(nil, macA, ip4A, ip4B)[:41],
		"fragment header cut":          ext6(44, 17, 0, 0, 8),
		"ICMPv6 behind options is cut": ext6(60, 58, 0, 1, 4, 0, 0, 0, 0, 128, 0, 0, 0),
	} {
		if _, r := Parse(f, 1); r != drop.Malformed {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestViewAccessors(t *testing.T) {
	f := BuildTCP(nil, ethA, IP{Src: ip4A, Dst: ip4B, TTL: 9, DF: true}, TCP{SrcPort: 1, DstPort: 2, Flags: FlagSYN}, []byte("data"))
	v := mustParse(t, append(f, "padding"...))
	if string(v.Payload()) != "data" || v.TCPFlags() != FlagSYN || v.TTL != 9 || !v.DF || v.L3Len != 44 || !v.HasPorts() {
		t.Errorf("%+v %q", v, v.Payload())
	}
	v = mustParse(t, with(f, 46, 0xf0)) // data offset 60 in a segment of 24
	if v.Payload() != nil {
		t.Error("payload of a wrong data offset")
	}
	if later := mustParse(t, laterFragment()); later.Transport() != nil || later.Payload() != nil || later.HasPorts() {
		t.Error("later fragment has a transport header")
	}
}

func TestParseRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := genFrame(rt)
		v, r := Parse(f, 3)
		if r != drop.None {
			rt.Fatal(r)
		}
		if f2 := v.Packet(); len(f2) != v.L3Len || v.L3+v.L3Len != len(f) {
			rt.Fatal("the IP packet does not end with the frame")
		}
		if s := ChecksumState(&v); v.known() && s != ChecksumValid {
			rt.Fatal(s)
		}
	})
}

func TestParseDoesNotAllocate(t *testing.T) {
	f := udp4()
	if n := testing.AllocsPerRun(100, func() {
		if _, r := Parse(f, 1); r != drop.None {
			t.Fatal(r)
		}
	}); n != 0 {
		t.Error(n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(udp4())
	f.Add(laterFragment())
	f.Add(BuildARPRequest(nil, macA, ip4A, ip4B))
	f.Add(BuildNeighbourSolicitation(nil, macA, ip6A, ip6B))
	f.Add(ext6(44, 17, 0, 0, 8, 0, 0, 0, 0))
	f.Add(BuildTimeExceeded(nil, &View{Frame: udp4(), Key: match.Key{EthType: EthTypeIPv4, Src: ip4A}, L3: 14, L3Len: 33}, ip4B))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, r := Parse(b, 1)
		if r != drop.None {
			return
		}
		if v.L3 < 0 || v.L3+v.L3Len > len(b) || v.L4 != 0 && (v.L4 < v.L3 || v.L4 > v.L3+v.L3Len) {
			t.Fatalf("offsets out of bounds: %+v", v)
		}
		if v.Key.Frag == match.FragLater && (v.L4 != 0 || v.Key.SrcPort|v.Key.DstPort != 0) {
			t.Fatalf("later fragment with ports: %+v", v)
		}
		// None may panic, whatever the frame.
		v.Payload()
		v.ARP()
		v.ICMP()
		v.ND()
		v.TCPFlags()
		v.MayCauseError()
		ChecksumState(&v)
		if q, ok := v.Quoted(); ok && (q.L3 > len(b) || q.L4 > len(b)) {
			t.Fatalf("quote out of bounds: %+v", q)
		}
		if out := BuildEchoReply(nil, &v); len(out) > 0 {
			mustParse(t, out)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, f := range map[string][]byte{"udp4": udp4(), "tcp6": BuildTCP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, TCP{}, nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(f, 1)
			}
		})
	}
}
