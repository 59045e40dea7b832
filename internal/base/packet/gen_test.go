package packet

import (
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

var (
	macA = match.MAC{0x02, 0, 0, 0, 0, 0xaa}
	macB = match.MAC{0x02, 0, 0, 0, 0, 0xbb}
	ethA = Ether{Dst: macB, Src: macA}
	ip4A = addr("10.0.0.1")
	ip4B = addr("10.0.0.2")
	ip6A = addr("2001:db8::1")
	ip6B = addr("2001:db8::2")
)

// fataler is what testing.TB and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func mustParse(t fataler, frame []byte) View {
	t.Helper()
	v, r := Parse(frame, 7)
	if r != drop.None {
		t.Fatalf("Parse: %v\n% x", r, frame)
	}
	return v
}

func genMAC(t *rapid.T, label string) (m match.MAC) {
	copy(m[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, label))
	return m
}

func genAddr(t *rapid.T, v6 bool, label string) (a match.Addr) {
	if v6 {
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
		a[0] = 0x20 // never IPv4-mapped
		return a
	}
	return Addr4(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label))
}

// genFrame draws a frame with a valid checksum: any family, transport and tagging.
func genFrame(t *rapid.T) []byte {
	v6 := rapid.Bool().Draw(t, "v6")
	eth := Ether{Dst: genMAC(t, "dst"), Src: genMAC(t, "src")}
	if rapid.Bool().Draw(t, "tagged") {
		eth.VLAN = rapid.Uint16().Draw(t, "tci") | match.VLANPresent
	}
	ip := IP{Src: genAddr(t, v6, "saddr"), Dst: genAddr(t, v6, "daddr"),
		TTL: rapid.Byte().Draw(t, "ttl"), TOS: rapid.Byte().Draw(t, "tos"), DF: rapid.Bool().Draw(t, "df"), ID: rapid.Uint16().Draw(t, "id")}
	payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
	p, q := rapid.Uint16().Draw(t, "p"), rapid.Uint16().Draw(t, "q")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return BuildUDP(nil, eth, ip, p, q, payload)
	case 1:
		return BuildTCP(nil, eth, ip, TCP{SrcPort: p, DstPort: q, Flags: FlagACK, Window: 1000}, payload)
	case 2:
		return BuildSCTP(nil, eth, ip, p, q, 42, payload)
	case 3:
		return BuildEchoRequest(nil, eth, ip, p, q, payload)
	default:
		return BuildIP(nil, eth, ip, 47, payload)
	}
}
