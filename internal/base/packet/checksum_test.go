package packet

import (
	"testing"

	"pgregory.net/rapid"
)

// slowSum is RFC 1071 as written.
func slowSum(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func TestChecksumMatchesRFC1071(t *testing.T) {
	if got := Checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) { // RFC 1071 section 3
		t.Errorf("%#x", got)
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "b")
		if got, want := Checksum(b), slowSum(b); got != want {
			rt.Fatalf("%#x, want %#x", got, want)
		}
		ones := make([]byte, len(b))
		for i := range ones {
			ones[i] = 0xff // carries everywhere
		}
		if got, want := Checksum(ones), slowSum(ones); got != want {
			rt.Fatalf("%#x, want %#x", got, want)
		}
	})
}

func TestUpdateChecksumMatchesRecomputation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 20, 60).Draw(rt, "b")
		b[0] |= 1 // never all zero: then 0 and 0xffff would both be right
		at := rapid.IntRange(1, (len(b)-4)/4).Draw(rt, "at") * 2
		n := rapid.IntRange(1, 2).Draw(rt, "words") * 2
		sum := Checksum(b)
		now := rapid.SliceOfN(rapid.Byte(), n, n).Draw(rt, "new")
		sum = UpdateChecksum(sum, b[at:at+n], now)
		copy(b[at:], now)
		if want := Checksum(b); sum != want {
			rt.Fatalf("%#x, want %#x", sum, want)
		}
	})
}

func TestChecksumStates(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		ip := IP{Src: ip4A, Dst: ip4B}
		if v6 {
			ip = IP{Src: ip6A, Dst: ip6B}
		}
		for name, f := range map[string][]byte{
			"udp":  BuildUDP(nil, ethA, ip, 1, 2, []byte("odd")),
			"tcp":  BuildTCP(nil, ethA, ip, TCP{SrcPort: 1}, []byte("x")),
			"sctp": BuildSCTP(nil, ethA, ip, 1, 2, 3, []byte("abcd")),
			"echo": BuildEchoRequest(nil, ethA, ip, 1, 2, []byte("abc")),
		} {
			v := mustParse(t, f)
			check := func(want ChecksumStatus) {
				t.Helper()
				if got := ChecksumState(&v); got != want {
					t.Errorf("%s v6=%v: %v, want %v", name, v6, got, want)
				}
				if got := NeedsChecksum(&v, GSO{}); got != (want == ChecksumPartial) {
					t.Errorf("%s v6=%v: NeedsChecksum %v for %v", name, v6, got, want)
				}
			}
			check(ChecksumValid)
			f[len(f)-1] ^= 1
			check(ChecksumWrong)
			f[len(f)-1] ^= 1
			FillPartial(&v)
			if v.Key.Proto == ProtoICMP {
				check(ChecksumValid) // has no pseudo header, so never partial
			} else {
				check(ChecksumPartial)
			}
			FillChecksum(&v)
			check(ChecksumValid)
			if !NeedsChecksum(&v, GSO{Size: 1000, Segs: 2}) {
				t.Errorf("%s: a GSO frame needs its checksum completed", name)
			}
			if v.Is4() {
				f[20] |= 0x20 // more fragments
				v = mustParse(t, f)
				check(ChecksumNone)
			}
		}
	}
	f := udp4()
	put16(f[40:], 0)
	v := mustParse(t, f)
	if s := ChecksumState(&v); s != ChecksumNone {
		t.Error(s)
	}
}

func BenchmarkChecksum1500(b *testing.B) {
	buf := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		Checksum(buf)
	}
}
