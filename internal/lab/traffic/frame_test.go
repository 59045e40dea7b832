package traffic

import (
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

// Whatever its mode, family and number, a frame must be one that another implementation builds with
// the same fields: lengths and checksums included.
func TestFramesAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{ModePorts, ModeDestinations, ModeSYN}).Draw(t, "mode")
		src, target := netip.MustParseAddr("10.0.1.66"), netip.MustParsePrefix("10.128.0.0/9")
		if rapid.Bool().Draw(t, "IPv6") {
			src, target = netip.MustParseAddr("fd00:1::66"), netip.MustParsePrefix("fd00:2::/64")
		}
		f, err := newFrames(mode, net.HardwareAddr{2, 0, 0, 0, 1, 0x66}, net.HardwareAddr{2, 0, 0, 0, 1, 1}, src, target)
		if err != nil {
			t.Fatal(err)
		}
		buf := append([]byte(nil), f.frame...)
		for _, i := range rapid.SliceOfN(rapid.Uint32(), 1, 5).Draw(t, "frames") { // one buffer takes many
			f.put(buf, i)
			p := gopacket.NewPacket(buf, layers.LayerTypeEthernet, gopacket.Default)
			if p.TransportLayer() == nil {
				t.Fatalf("frame %d: %v", i, p)
			}
			dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
			if !target.Contains(dst) {
				t.Fatalf("frame %d goes to %s, outside %s", i, dst, target)
			}
			if got := rebuild(t, p); string(got) != string(buf) {
				t.Fatalf("frame %d\n%x, want\n%x", i, buf, got)
			}
		}
	})
}

// rebuild serializes a packet's headers anew, with lengths and checksums computed.
func rebuild(t *rapid.T, p gopacket.Packet) []byte {
	transport := p.TransportLayer()
	// The payload is only bytes, also where its port would say more.
	payload := gopacket.Payload(transport.LayerPayload())
	type needsNetwork interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}
	if err := transport.(needsNetwork).SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	out := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, p.LinkLayer().(gopacket.SerializableLayer),
		p.NetworkLayer().(gopacket.SerializableLayer), transport.(gopacket.SerializableLayer), payload)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Two numbers are two flows.
func TestFramesAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{ModePorts, ModeSYN, ModeDestinations}).Draw(t, "mode")
		target, limit := netip.MustParsePrefix("10.0.2.66/32"), uint32(1<<32-1)
		if mode == ModeDestinations {
			target, limit = netip.MustParsePrefix("10.128.0.0/9"), 1<<23-1
		}
		f, err := newFrames(mode, make([]byte, 6), make([]byte, 6), netip.MustParseAddr("10.0.1.66"), target)
		if err != nil {
			t.Fatal(err)
		}
		a := rapid.Uint32Range(0, limit).Draw(t, "a")
		b := rapid.Uint32Range(0, limit).Draw(t, "b")
		first, second := append([]byte(nil), f.frame...), append([]byte(nil), f.frame...)
		f.put(first, a)
		f.put(second, b)
		flow := func(frame []byte) string { return string(frame[ethLen+12 : f.l4+4]) } // addresses and ports
		if (flow(first) == flow(second)) != (a == b) {
			t.Fatalf("frames %d and %d: %x and %x", a, b, first, second)
		}
	})
}

func TestFramesRefuse(t *testing.T) {
	mac, v4, v6 := make(net.HardwareAddr, 6), netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("fd00::/64")
	if _, err := newFrames(ModePorts, mac, mac, v4, v6); err == nil {
		t.Error("two families: no error")
	}
	if _, err := newFrames("icmp", mac, mac, v6.Addr(), v6); err == nil {
		t.Error("unknown mode: no error")
	}
	if _, err := newFrames(ModePorts, nil, mac, v6.Addr(), v6); err == nil {
		t.Error("no MAC: no error")
	}
}
