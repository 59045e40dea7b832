package sim_test

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// TestAdvertise: what routers say unasked is what they say when asked from no address, at ports of VMs that are up.
func TestAdvertise(t *testing.T) {
	topo := pathtest.MustParse(served + "vm vx a\nsubnet more a fd05::/64 gw=fd01::1 mode=slaac\ndown vx\n")
	in := topo.MustInject("va rs eth=va>33:33:00:00:00:02 ip=::>ff02::2")
	var c sim.Context
	topo.Simulate(&c, &in)
	frames := sim.Advertise(topo, topo.Port(pathtest.ID("va")))
	if len(frames) != 1 || len(c.Generated) != 1 || string(frames[0]) != string(c.Generated[0].Frame) {
		t.Fatalf("unasked %x, asked %+v", frames, c.Generated)
	}
	if v, why := packet.Parse(frames[0], 1); why != drop.None || packet.ChecksumState(&v) != packet.ChecksumValid || v.TTL != 255 {
		t.Errorf("%s, hop limit %d", why, v.TTL)
	}
	for _, port := range []string{"vx", "a:r", "vb"} {
		if f := sim.Advertise(topo, topo.Port(pathtest.ID(port))); f != nil {
			t.Errorf("advertised at %s: %x", port, f)
		}
	}
}
