package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

// Thousands of flows that a change has made invalid, or that have expired, starve nobody: at each turn some go, and a packet that comes
// meanwhile is served in that very turn, by what is decided now. Between two turns the worker does not wait for packets.
func TestManyFlowsGoBetweenPackets(t *testing.T) {
	const n, atMost = 5_000, 512
	for _, c := range []struct {
		name  string
		begin func(*rig)
	}{
		{"invalidated", func(r *rig) { r.w.Invalidate([]tag.Tag{{Kind: tag.Device, ID: pathtest.ID("r")}}) }},
		{"expired", func(r *rig) { r.clk.Advance(3 * time.Minute) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, twoSubnets, Config{})
			stale := action.Physical{{Op: action.Output, Port: 99}}
			in := r.topo.MustInject(aToC)
			k := in.View.Key
			k.InPort, _ = r.ports.Local(pathtest.ID("a"))
			k.SrcPort = 1000 // the packets' own flow is among the old ones
			for i := range n {
				k.DstPort = uint16(53 + i)
				r.w.flows.Add(&k, match.All, stale, []tag.Tag{{Kind: tag.Device, ID: pathtest.ID("r")}}, flow.Normal)
			}
			if err := r.w.flows.Flush(); err != nil {
				t.Fatal(err)
			}
			left := r.flows()
			c.begin(r)
			turns := 0
			for ; left > 20; turns++ {
				if turns > n/10 {
					t.Fatalf("after %d turns there are %d flows left", turns, left)
				}
				if turns%100 == 0 && c.name == "invalidated" {
					// The kernel's copies still forward; this packet has none of them.
					r.in(fmt.Sprintf("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=%d>53", 2000+turns))
				}
				if err := r.w.Turn(0); err != nil {
					t.Fatal(err)
				}
				if turns%100 == 0 && c.name == "invalidated" {
					r.expect("c < ")
				}
				now := r.flows()
				if gone := left - now; gone > atMost {
					t.Fatalf("%d flows have gone at a turn", gone)
				}
				if left = now; left > 20 && turns > 0 && !r.w.busy {
					t.Fatalf("with %d flows left the worker would wait", left)
				}
			}
			if turns < n/atMost {
				t.Errorf("all have gone in %d turns", turns)
			}
			if c.name != "invalidated" {
				return // the wildcard entries have not been idle as long as their flows: they still decide
			}
			r.turn()
			r.in(aToC)
			r.turn()
			r.expect("c < ")
		})
	}
}
