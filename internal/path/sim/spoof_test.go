package sim_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// TestLiesInDisguise: each lie of a secured VM is dropped by its name in either family, also when it is tagged, with extension headers
// in front, in a fragment, or all of it at once.
func TestLiesInDisguise(t *testing.T) {
	topo := pathtest.MustParse(`
bridge a
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb a 02:00:00:00:00:0b 10.0.1.6 fd01::6
secure va
groups va g
allow g out
allow g out six
`)
	const ip, six = "ip", "six" // what may be fragmented, and have extension headers
	for _, c := range []struct {
		lie, as string
		why     drop.Reason
	}{
		{"va udp eth=vb>vb ip=10.0.1.5>10.0.1.6 ports=1>2", ip, drop.SpoofedMAC},
		{"va udp eth=vb>vb ip=fd01::5>fd01::6 ports=1>2", six, drop.SpoofedMAC},
		{"va tcp eth=va>vb ip=10.0.1.9>10.0.1.6 ports=1>2", ip, drop.SpoofedIP},
		{"va tcp eth=va>vb ip=fd01::9>fd01::6 ports=1>2", six, drop.SpoofedIP},
		{"va udp eth=va>vb ip=fe80::9>fd01::6 ports=1>2", six, drop.SpoofedIP},
		{"va icmp eth=va>vb ip=::>fd01::6 type=128", six, drop.SpoofedIP},
		{"va arp op=reply eth=va>vb ip=10.0.1.9>10.0.1.6", "", drop.SpoofedARP},
		{"va arp op=reply eth=va>vb ip=10.0.1.5>10.0.1.6 sha=vb", "", drop.SpoofedARP},
		{"va na eth=va>vb ip=fd01::5>fd01::6 target=fd01::9 lla=va", six, drop.SpoofedND},
		{"va na eth=va>vb ip=fd01::5>fd01::6 target=fd01::5 lla=vb", six, drop.SpoofedND},
		{"va ns eth=va>vb ip=fd01::5>fd01::6 target=fd01::6 lla=vb", six, drop.SpoofedND},
		{"va udp eth=va>vb ip=10.0.1.5>10.0.1.6 ports=67>68", ip, drop.SpoofedDHCP},
		{"va udp eth=va>vb ip=10.0.1.5>10.0.1.6 ports=9>68", ip, drop.SpoofedDHCP},
		{"va udp eth=va>vb ip=fd01::5>fd01::6 ports=547>546", six, drop.SpoofedDHCP},
		{"va icmp eth=va>33:33:00:00:00:01 ip=fe80::ff:fe00:a>ff02::1 type=134", six, drop.SpoofedRA},
		{"va icmp eth=va>vb ip=fe80::ff:fe00:a>fd01::6 type=137", six, drop.SpoofedRA},
		{"va other eth=va>vb type=35020", "", drop.SpoofedType},
	} {
		disguises := []string{"", " vlan=7"}
		if c.as != "" {
			disguises = append(disguises, " frag=first", " frag=first vlan=7")
		}
		if c.as == six {
			disguises = append(disguises, " ext=1", " ext=1 vlan=7", " frag=first ext=1 vlan=7")
		}
		if c.why == drop.SpoofedMAC || c.why == drop.SpoofedIP {
			disguises = append(disguises, " frag=later", " frag=later vlan=7")
		}
		for _, d := range disguises {
			if strings.HasPrefix(c.lie, "va other") && d != "" {
				continue // the builder does not tag it
			}
			line := c.lie + d + " len=200"
			in, err := topo.Inject(line)
			if err != nil {
				t.Fatal(err)
			}
			var x sim.Context
			if topo.Simulate(&x, &in); x.Result != sim.ResultDrop || x.Reason != c.why || len(x.Learn) > 0 || len(x.Generated) > 0 {
				t.Errorf("%s: %s, %s; %d learnt, %d generated; want %s", line, x.Result, x.Reason, len(x.Learn), len(x.Generated), c.why)
			}
		}
	}
}
