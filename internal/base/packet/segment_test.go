package packet

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// The oracle builds each datagram on its own.
func TestUDPSegmentsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6, partial := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "partial")
		eth := Ether{Dst: genMAC(t, "dst"), Src: genMAC(t, "src")}
		if rapid.Bool().Draw(t, "tagged") {
			eth.VLAN = rapid.Uint16().Draw(t, "tci") | match.VLANPresent
		}
		ip := IP{Src: genAddr(t, v6, "saddr"), Dst: genAddr(t, v6, "daddr"), TTL: rapid.Byte().Draw(t, "ttl"), TOS: rapid.Byte().Draw(t, "tos"),
			DF: rapid.Bool().Draw(t, "df"), ID: rapid.Uint16().Draw(t, "id")}
		payload := rapid.SliceOfN(rapid.Byte(), 1, 4000).Draw(t, "payload")
		size := rapid.IntRange(1, 1500).Draw(t, "size")
		sport, dport := rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")

		frame := append(BuildUDP(nil, eth, ip, sport, dport, payload), make([]byte, rapid.IntRange(0, 20).Draw(t, "padding"))...)
		v := mustParse(t, frame)
		if partial {
			FillPartial(&v)
		}
		before := bytes.Clone(frame)
		n := UDPSegments(&v, uint16(size))
		for i := range n {
			part := payload[:min(size, len(payload))]
			payload = payload[len(part):]
			want := BuildUDP(nil, eth, ip, sport, dport, part)
			ip.ID++
			if got := AppendUDPSegment(nil, &v, uint16(size), i); !bytes.Equal(got, want) {
				t.Fatalf("datagram %d of %d:\ngot  % x\nwant % x", i, n, got, want)
			}
		}
		if len(payload) != 0 {
			t.Fatalf("%d bytes are in none of %d datagrams", len(payload), n)
		}
		if !bytes.Equal(frame, before) {
			t.Fatal("the frame itself changed")
		}
	})
}

// IPv4 options and IPv6 extension headers are in front of every datagram.
func TestUDPSegmentsKeepHeaders(t *testing.T) {
	options := BuildUDP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 5, 6, make([]byte, 100))
	options = append(options[:EthLen+IPv4Len:EthLen+IPv4Len], append([]byte{1, 1, 1, 0}, options[EthLen+IPv4Len:]...)...)
	options[EthLen] = 0x46
	put16(options[EthLen+2:], uint16(len(options)-EthLen))

	plain := BuildUDP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, 5, 6, make([]byte, 100))
	extended := BuildIP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, extDstOpts, append([]byte{ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, plain[EthLen+IPv6Len:]...))

	for name, frame := range map[string][]byte{"IPv4 options": options, "IPv6 destination options": extended} {
		v := mustParse(t, frame)
		if n := UDPSegments(&v, 30); n != 4 {
			t.Fatalf("%s: %d datagrams", name, n)
		}
		for i, length := range []int{30, 30, 30, 10} {
			s := mustParse(t, AppendUDPSegment(nil, &v, 30, i))
			if s.L4 != v.L4 || len(s.Payload()) != length || ChecksumState(&s) != ChecksumValid || len(s.Frame) != s.L3+s.L3Len {
				t.Errorf("%s: datagram %d: % x", name, i, s.Frame)
			}
			if s.Is4() && Checksum(s.Frame[s.L3:s.L4]) != 0 {
				t.Errorf("%s: datagram %d: IPv4 checksum", name, i)
			}
		}
	}
}

func TestNoUDPSegments(t *testing.T) {
	ip := IP{Src: ip4A, Dst: ip4B}
	short := BuildUDP(nil, ethA, ip, 1, 2, []byte("some"))
	put16(short[EthLen+IPv4Len+4:], 5) // a UDP length that leaves payload out
	fragment := BuildUDP(nil, ethA, ip, 1, 2, []byte("some"))
	fragment[EthLen+6] = 0x20
	for name, c := range map[string]struct {
		frame []byte
		size  uint16
	}{
		"no size":         {BuildUDP(nil, ethA, ip, 1, 2, []byte("some")), 0},
		"no payload":      {BuildUDP(nil, ethA, ip, 1, 2, nil), 4},
		"TCP":             {BuildTCP(nil, ethA, ip, TCP{}, []byte("some")), 4},
		"another length":  {short, 4},
		"first fragment":  {fragment, 4},
		"not IP":          {append(make([]byte, 12), 0x88, 0xcc, 1, 2, 3), 4},
		"opaque protocol": {BuildIP(nil, ethA, ip, 47, []byte("something")), 4},
	} {
		v := mustParse(t, c.frame)
		if n := UDPSegments(&v, c.size); n != 0 {
			t.Errorf("%s: %d datagrams", name, n)
		}
	}
}

func TestAppendUDPSegmentDoesNotAllocate(t *testing.T) {
	frame := BuildUDP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, 1, 2, make([]byte, 1000))
	buf := make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(100, func() {
		v, _ := Parse(frame, 1)
		for i := range UDPSegments(&v, 300) {
			AppendUDPSegment(buf, &v, 300, i)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWireLen(t *testing.T) {
	tcp := func(data int) []byte {
		return BuildTCP(nil, Ether{}, IP{Src: ip4A, Dst: ip4B}, TCP{SrcPort: 1, DstPort: 2}, make([]byte, data))
	}
	arp, options := BuildARPRequest(nil, macA, ip4A, ip4B), tcp(3000)
	options[EthLen+IPv4Len+12] = 8 << 4 // 12 bytes of the data are options
	for _, c := range []struct {
		name  string
		frame []byte
		gso   GSO
		want  int
	}{
		{"whole", tcp(3000), GSO{}, 3040},
		{"padded", append(tcp(1), 0, 0, 0, 0), GSO{}, 41},
		{"segments", tcp(3000), GSO{Size: 1000, Segs: 3}, 1040},
		{"options are in each segment", options, GSO{Size: 1000, Segs: 3}, 1052},
		{"one that is shorter than a segment", tcp(300), GSO{Size: 1000, Segs: 1}, 340},
		{"datagrams", BuildUDP(nil, Ether{}, IP{Src: ip6A, Dst: ip6B}, 1, 2, make([]byte, 3000)), GSO{Size: 1000, Segs: 3}, 1048},
		{"lengths of their own", BuildSCTP(nil, Ether{}, IP{Src: ip4A, Dst: ip4B}, 1, 2, 3, make([]byte, 3000)), GSO{Size: 0xffff}, 0},
		{"in a tunnel", BuildIP(nil, Ether{}, IP{Src: ip4A, Dst: ip4B}, 47, make([]byte, 3000)), GSO{Size: 1000, Segs: 3}, 1000},
		{"not IP", arp, GSO{}, 0},
	} {
		v := mustParse(t, c.frame)
		if n := v.WireLen(c.gso); n != c.want {
			t.Errorf("%s: %d, want %d", c.name, n, c.want)
		}
	}
}
