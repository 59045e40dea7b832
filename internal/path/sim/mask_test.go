package sim_test

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// TestWideMasks: that a bridge serves DHCP, or that a port is secured, does not tell apart flows that have nothing to do with it.
func TestWideMasks(t *testing.T) {
	const ports = match.SrcPort | match.DstPort
	topo := pathtest.MustParse(`
bridge a
router r
bridge b
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb b 02:00:00:00:00:0b 10.0.2.5 fd02::5
link a r=10.0.1.1/24,fd01::1/64
link b r=10.0.2.1/24,fd02::1/64
subnet a4 a 10.0.1.0/24 gw=10.0.1.1
subnet a6 a fd01::/64 gw=fd01::1 mode=stateful
secure va
groups va g
stateless g
allow g out
allow g out six
`)
	for _, c := range []struct {
		packet    string
		read, not match.Mask
		userSpace bool
	}{
		{"va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>2000", match.DHCP | match.Dst, ports, false},
		{"va udp eth=va>r:a ip=fd01::5>fd02::5 ports=1000>2000", match.DHCP | match.Dst, ports, false},
		{"va tcp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>2000", match.Dst, ports | match.DHCP, false},
		{"va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>68", match.DHCP, ports, false},
		{"va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>67", match.DHCP | match.SrcPort, match.DstPort, false},
		// Later ones wait for a first one, which must therefore come by each time.
		{"va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>2000 frag=first", match.Frag, ports, true},
		{"va tcp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1000>2000 frag=first", match.Frag, ports, true},
	} {
		in := topo.MustInject(c.packet)
		var x sim.Context
		topo.Simulate(&x, &in)
		if x.Mask&c.read != c.read || x.Mask&c.not != 0 || x.UserSpace != c.userSpace {
			t.Errorf("%s: %s, mask %s, user space %v: want %s, without %s, %v", c.packet, x.Result, x.Mask, x.UserSpace, c.read, c.not, c.userSpace)
		}
	}
}
