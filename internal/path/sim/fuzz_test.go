package sim_test

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// FuzzSimulate: no frame, at no port, makes the engine panic, generate more than it may, or
// generate what does not parse.
func FuzzSimulate(f *testing.F) {
	topo := pathtest.MustParse(rich)
	for _, line := range []string{
		"va udp eth=va>r:a ip=10.0.1.5>8.8.8.8 ports=1>2",
		"va echo eth=va>r:a ip=10.0.1.5>10.0.1.1 len=20",
		"va arp eth=va>broadcast ip=10.0.1.5>10.0.1.1",
		"va arp eth=va>broadcast ip=10.0.1.5>10.0.1.5",
		"va ns eth=va>33:33:ff:00:00:01 ip=fd01::5>ff02::1:ff00:1 target=fd01::1 lla=va",
		"va na eth=va>r:a ip=fd01::5>fd01::1 target=fd01::5 lla=va",
		"va error eth=va>r:a ip=10.0.1.5>8.8.8.8",
		"va udp eth=va>r:a ip=fd01::5>fd02::5 ports=1>2 ttl=1",
		"va dhcp eth=va>broadcast ip=0.0.0.0>255.255.255.255 type=1",
		"va dhcp eth=va>r:a ip=10.0.1.5>10.0.1.1 type=3 ciaddr=10.0.1.5",
		"va dhcp6 eth=va>33:33:00:01:00:02 ip=fe80::5>ff02::1:2 type=1 ia=none",
		"va rs eth=va>33:33:00:00:00:02 ip=fe80::5>ff02::2",
		"va ra eth=va>33:33:00:00:00:01 ip=fe80::5>ff02::1",
	} {
		in := topo.MustInject(line)
		f.Add(in.View.Frame, uint16(0))
		f.Add(in.View.Frame, uint16(1))
	}
	f.Fuzz(func(t *testing.T, frame []byte, gso uint16) {
		v, why := packet.Parse(frame, 1)
		if why != drop.None {
			return
		}
		var c, next sim.Context
		for _, port := range []string{"va", "vc", "up", "r:a"} {
			in := pathtest.Injection{Port: pathtest.ID(port), View: v, GSO: packet.GSO{Size: gso}}
			topo.Simulate(&c, &in)
			if len(c.Generated) > sim.MaxGenerated {
				t.Fatalf("%d packets generated", len(c.Generated))
			}
			for _, g := range c.Generated {
				v, why := packet.Parse(g.Frame, 1)
				if why != drop.None {
					t.Fatalf("generated a frame that does not parse: %s", why)
				}
				out := pathtest.Injection{Port: g.Port, Egress: true, View: v}
				topo.Simulate(&next, &out)
			}
		}
	})
}
