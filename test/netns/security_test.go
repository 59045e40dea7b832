package netns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// TestPortSecurity: what a secured VM sends in another's name is dropped, each lie counted by its name; the
// VM itself goes on to talk, from an allowed pair too.
func TestPortSecurity(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	mallory := space(t, l, "mallory")
	apply(t, l, `
kind: port
name: mallory
bridge: blue
mac: 02:00:00:00:01:66
addresses: [10.0.1.66, "fd00:1::66"]
port_security: true
allowed_address_pairs: [{address: 10.0.1.96/28}]
`)
	own, gateway := match.MAC{2, 0, 0, 0, 1, 0x66}, match.MAC{2, 0, 0, 0, 1, 1}
	alice := match.MAC{2, 0, 0, 0, 1, 0x10}
	addr := func(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }
	ip := func(src, dst string) packet.IP { return packet.IP{Src: addr(src), Dst: addr(dst), TTL: 255} }
	eth := packet.Ether{Src: own, Dst: gateway}
	for _, c := range []struct {
		reason string
		frame  []byte
	}{
		{"spoofed_mac", packet.BuildUDP(nil, packet.Ether{Src: alice, Dst: gateway}, ip("10.0.1.66", "10.0.2.10"), 1, 2, nil)},
		{"spoofed_ip", packet.BuildUDP(nil, eth, ip("10.0.1.10", "10.0.2.10"), 1, 2, nil)},
		{"spoofed_arp", packet.BuildARP(nil, packet.Ether{Src: own, Dst: match.Broadcast},
			packet.ARP{Op: packet.ARPRequest, SHA: own, SPA: addr("10.0.1.1"), TPA: addr("10.0.1.1")})},
		{"spoofed_nd", packet.BuildND(nil, packet.Ether{Src: own, Dst: alice}, addr("fd00:1::66"), addr("fd00:1::10"),
			packet.ND{Advert: true, Target: addr("fd00:1::1"), LLA: own, HasLLA: true})},
		{"spoofed_dhcp", packet.BuildUDP(nil, packet.Ether{Src: own, Dst: match.Broadcast}, ip("10.0.1.66", "255.255.255.255"), 67, 68, make([]byte, 300))},
		{"spoofed_ra", packet.BuildICMP(nil, packet.Ether{Src: own, Dst: match.MAC{0x33, 0x33, 5: 1}}, ip("fe80::ff:fe00:166", "ff02::1"),
			packet.ICMP{Type: packet.ICMPv6RouterAdv}, make([]byte, 8))},
		{"spoofed_type", frame(0x88cc, make([]byte, 46))},
	} {
		t.Run(c.reason, func(t *testing.T) {
			before := dropped(t, l, c.reason)
			eventually(t, "the drop is counted by its name", func(context.Context) error {
				inject(t, mallory, [][]byte{c.frame}) // again: the first one may be there before the agent has heard that the port is secured
				if dropped(t, l, c.reason) == before {
					return fmt.Errorf("no packet counted as %s", c.reason)
				}
				return nil
			})
		})
	}
	ping(t, mallory, "10.0.2.10")
	ping(t, mallory, "fd00:2::10")
	if out, err := command(mallory, "ip", "address", "add", "10.0.1.97/24", "dev", "eth0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ping(t, mallory, "10.0.2.10", "-I", "10.0.1.97")
}
