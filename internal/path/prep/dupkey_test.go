package prep

import (
	"bytes"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func TestDupKey(t *testing.T) {
	v4, v6 := packet.EthTypeIPv4, packet.EthTypeIPv6
	for _, tt := range []struct {
		name    string
		key     match.Key
		content bool // two packets that differ only in content are different
	}{
		{"tcp", match.Key{EthType: v4, Proto: packet.ProtoTCP, DstPort: 67}, false},
		{"udp", match.Key{EthType: v4, Proto: packet.ProtoUDP, DstPort: 53}, false},
		{"later fragment of udp", match.Key{EthType: v4, Proto: packet.ProtoUDP, Frag: match.FragLater}, true},
		{"later fragment of icmp", match.Key{EthType: v4, Proto: packet.ProtoICMP, Frag: match.FragLater, SrcPort: 3 << 8}, true},
		{"unknown ethertype", match.Key{EthType: 0x88cc, Proto: packet.ProtoICMP, SrcPort: 3 << 8}, false},
		{"echo request", match.Key{EthType: v4, Proto: packet.ProtoICMP, SrcPort: 8 << 8}, false},
		{"echo reply", match.Key{EthType: v4, Proto: packet.ProtoICMP}, false},
		{"echo request 6", match.Key{EthType: v6, Proto: packet.ProtoICMPv6, SrcPort: 128 << 8}, false},
		{"echo reply 6", match.Key{EthType: v6, Proto: packet.ProtoICMPv6, SrcPort: 129 << 8}, false},
		{"arp", match.Key{EthType: packet.EthTypeARP, Proto: 1}, true},
		{"unreachable", match.Key{EthType: v4, Proto: packet.ProtoICMP, SrcPort: 3<<8 | 1}, true},
		{"too big 6", match.Key{EthType: v6, Proto: packet.ProtoICMPv6, SrcPort: 2 << 8}, true},
		{"neighbour solicitation", match.Key{EthType: v6, Proto: packet.ProtoICMPv6, SrcPort: 135 << 8}, true},
		{"dhcp to server", match.Key{EthType: v4, Proto: packet.ProtoUDP, SrcPort: 68, DstPort: 67}, true},
		{"dhcp to client", match.Key{EthType: v4, Proto: packet.ProtoUDP, SrcPort: 67, DstPort: 68}, true},
		{"dhcpv6", match.Key{EthType: v6, Proto: packet.ProtoUDP, SrcPort: 546, DstPort: 547}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := datapath.Miss{Key: tt.key, Frame: []byte("one"), Time: 1}
			b := datapath.Miss{Key: tt.key, Frame: []byte("two"), Time: 2}
			if got := DupKey(&a) != DupKey(&b); got != tt.content {
				t.Errorf("differ: %v, want %v", got, tt.content)
			}
			b.Frame = bytes.Clone(a.Frame)
			if DupKey(&a) != DupKey(&b) {
				t.Error("the same packet differs")
			}
			b.Reason = datapath.MissTTL
			if DupKey(&a) == DupKey(&b) {
				t.Error("a packet whose TTL ends is no duplicate of one that goes on")
			}
			b.Reason, b.Key.InPort = a.Reason, 7
			if DupKey(&a) == DupKey(&b) {
				t.Error("packets of two ports are no duplicates")
			}
		})
	}
}
