package packet

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// TestRouterAdvert reads what we build with somebody else's eyes.
func TestRouterAdvert(t *testing.T) {
	mac := match.MAC{2, 0, 0, 0, 1, 1}
	src := match.Addr{0: 0xfe, 1: 0x80, 15: 1}
	prefix := match.Addr{0: 0xfd, 7: 9}
	frame := BuildRouterAdvert(nil, Ether{Src: mac}, src, match.Addr{}, RouterAdvert{
		MAC: mac, Managed: true, Lifetime: 1800, MTU: 1400, DNSLifetime: 600, DNS: []match.Addr{src, prefix}, Domains: []byte("\x01a\x00"),
		Prefixes: []AdvertPrefix{{Prefix: prefix, Bits: 64, Auto: true, Lifetime: 3600}},
	})
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	ra, ok := p.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
	if !ok || p.ErrorLayer() != nil {
		t.Fatalf("%v", p)
	}
	if ra.HopLimit != 64 || !ra.ManagedAddressConfig() || ra.OtherConfig() || ra.RouterLifetime != 1800 || len(ra.Options) != 5 {
		t.Errorf("%+v", ra)
	}
	for i, want := range []struct {
		typ  layers.ICMPv6Opt
		data string
	}{
		{layers.ICMPv6OptSourceAddress, string(mac[:])},
		{layers.ICMPv6OptMTU, "\x00\x00\x00\x00\x05\x78"},
		{layers.ICMPv6OptPrefixInfo, "\x40\xc0\x00\x00\x0e\x10\x00\x00\x0e\x10\x00\x00\x00\x00" + string(prefix[:])},
		{25, "\x00\x00\x00\x00\x02\x58" + string(src[:]) + string(prefix[:])},
		{31, "\x00\x00\x00\x00\x02\x58\x01a\x00\x00\x00\x00\x00\x00"},
	} {
		if o := ra.Options[i]; o.Type != want.typ || !bytes.Equal(o.Data, []byte(want.data)) {
			t.Errorf("option %d: %d %x, want %d %x", i, o.Type, o.Data, want.typ, want.data)
		}
	}
	if v, why := Parse(frame, 1); why != drop.None || ChecksumState(&v) != ChecksumValid || v.Key.Dst != allNodes || v.Key.EthDst != allNodesMAC {
		t.Errorf("%s %+v", why, v.Key)
	}
}

func TestRouterSolicitation(t *testing.T) {
	src := match.Addr{0: 0xfe, 1: 0x80, 15: 1}
	for _, c := range []struct {
		name    string
		src     match.Addr
		ttl     uint8
		code    uint8
		options string
		want    bool
	}{
		{"plain", src, 255, 0, "", true},
		{"source address", src, 255, 0, "\x01\x01\x02\x00\x00\x00\x00\x01", true},
		{"unspecified", match.Addr{}, 255, 0, "", true},
		{"unspecified with a source address", match.Addr{}, 255, 0, "\x01\x01\x02\x00\x00\x00\x00\x01", false},
		{"routed", src, 254, 0, "", false},
		{"code", src, 255, 1, "", false},
		{"an option of length 0", src, 255, 0, "\x01\x00\x02\x00\x00\x00\x00\x01", false},
		{"half an option", src, 255, 0, "\x01\x02\x02\x00\x00\x00\x00\x01", false},
	} {
		frame := BuildICMP(nil, Ether{}, IP{Src: c.src, Dst: allNodes, TTL: c.ttl}, ICMP{Type: ICMPv6RouterSol, Code: c.code}, []byte(c.options))
		v, why := Parse(frame, 1)
		if why != drop.None || v.RouterSolicitation() != c.want {
			t.Errorf("%s: %s, %v", c.name, why, !c.want)
		}
	}
}
