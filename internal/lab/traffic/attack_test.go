package traffic

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

func testAttack(t *testing.T, m Mode) *attack {
	t.Helper()
	a, err := newAttack(m, net.HardwareAddr{2, 0, 0, 0, 1, 0x66}, net.HardwareAddr{2, 0, 0, 0, 1, 1}, netip.MustParseAddr("10.0.1.66"),
		netip.MustParseAddr("fd00:1::66"), netip.MustParsePrefix("10.128.0.0/9"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Frames of attacks fit into an Ethernet frame, are the same in every run, parse unless they are not to, and are many flows.
func TestAttackFrames(t *testing.T) {
	for _, m := range append(Modes(), ModeMixed)[3:] {
		a := testAttack(t, m)
		buf, again := a.room(), a.room()
		flows, bad := map[match.Key]bool{}, 0
		const frames = 2000
		for i := range uint32(frames) {
			n := a.put(buf, i)
			if k := a.put(again, i); !bytes.Equal(buf[:n], again[:k]) {
				t.Fatalf("%s: frame %d differs from itself", m, i)
			}
			if n < packet.EthLen || n > packet.EthLen+1500 {
				t.Fatalf("%s: frame %d has %d bytes", m, i, n)
			}
			v, why := packet.Parse(buf[:n], 1)
			if why != drop.None {
				bad++
				continue
			}
			flows[v.Key] = true
		}
		if malformed := m == ModeSizes || m == ModeMixed; malformed != (bad > 0) {
			t.Errorf("%s: %d of %d frames are malformed", m, bad, frames)
		}
		want := frames * 9 / 10
		switch m {
		case ModeDHCP:
			want = 1 // the clients are in the message
		case ModeFragments:
			want = frames / 2 // later ones have no ports
		case ModeSizes:
			want = frames / 4
		case ModeMixed:
			want = frames * 7 / 10
		}
		if len(flows) < want {
			t.Errorf("%s: %d frames are %d flows", m, frames, len(flows))
		}
		if n := testing.AllocsPerRun(100, func() { a.put(buf, 7) }); n != 0 {
			t.Errorf("%s: %v allocations for a frame", m, n)
		}
	}
	if _, err := newAttack("none", nil, nil, netip.Addr{}, netip.Addr{}, netip.Prefix{}); err == nil {
		t.Error("a mode that does not exist was taken")
	}
}
