package worker

import (
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
)

// A worker that is to hold does what it is told, but takes no packet: they wait in the datapath, and those that have waited
// for too long are dropped.
func TestHold(t *testing.T) {
	var r *rig
	r = newRig(t, twoSubnets, func() (c Config) {
		c.Hold = true
		c.Queue.Now = func() int64 { return r.clk.Now() }
		return c
	}())
	r.in(aToC)
	called := false
	r.w.Do(func() { called = true })
	r.turn()
	if c := r.w.Counts(); !called || c.In != 0 || r.dp.Queued() != 1 {
		t.Fatalf("called: %v, %d misses wait, %+v", called, r.dp.Queued(), c)
	}
	r.w.Do(r.w.Listen) // another host's message would be heard now
	r.turn()
	if c := r.w.Counts(); c.In != 0 || r.w.Queue().Len() != 1 {
		t.Fatalf("%d misses wait, %+v", r.w.Queue().Len(), c)
	}
	r.clk.Advance(tooLate + time.Second)
	r.in("b udp eth=b>r:blue ip=10.0.1.11>10.0.2.10 ports=1000>53")
	r.w.Do(r.w.Serve)
	r.turn()
	r.expect("10.0.1.11")
	if c := r.w.Counts(); c.In != 2 || c.Dropped[drop.ParkTimeout] != 1 {
		t.Errorf("%+v", c)
	}
	// From now on nothing is too late.
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=1>1")
	r.clk.Advance(tooLate + time.Second)
	r.turn()
	r.expect("c < ")
}
