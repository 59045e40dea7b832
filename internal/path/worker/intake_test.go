package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
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

// settled counts how often all misses were done.
type settled int

func (s *settled) Settle(int) { *s++ }

// The datapath may forget what was read once it has left, and not while some of it waits: for its turn, or for a neighbour.
func TestSettled(t *testing.T) {
	r := newRig(t, twoSubnets, Config{Batch: 2})
	var s settled
	r.w.settler = &s
	for range 3 {
		r.in(aToC)
	}
	if err := r.w.Turn(0); err != nil || s != 0 {
		t.Errorf("settled %d times while one of three has not had its turn, %v", s, err)
	}
	if err := r.w.Turn(0); err != nil || s != 1 {
		t.Errorf("settled %d times when all were sent, %v", s, err)
	}
	r.in("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.20 ports=1>2")
	r.turn()
	if r.w.Counts().Waiting != 1 {
		t.Fatalf("%+v", r.w.Counts())
	}
	before := s
	if r.turn(); s != before {
		t.Error("settled while a packet waits for a neighbour")
	}
	r.in("d arp op=reply eth=02:00:00:00:00:0d>r:red ip=10.0.2.20>10.0.2.1")
	r.turn()
	if s == before {
		t.Error("not settled when it was sent")
	}
}

// A packet of a port that sends little leaves before the packets of a port that floods are decided.
func TestSparseLeavesAlone(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.dp.SetFaults(fake.Faults{Execute: func(*datapath.Exec) error { // sending takes time, so turns end
		r.clk.Advance(10 * time.Microsecond)
		return nil
	}})
	for range 20 {
		r.in(aToC)
	}
	turn := func() {
		t.Helper()
		if err := r.w.Turn(0); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if n := len(r.got()); n != 8 {
		t.Fatalf("a batch of %d packets", n)
	}
	r.in("b udp eth=b>r:blue ip=10.0.1.11>10.0.2.10 ports=1000>53")
	for range 5 {
		turn()
		got := r.got()
		if !strings.Contains(strings.Join(got, "\n"), "10.0.1.11") {
			continue
		}
		if len(got) != 1 {
			t.Fatalf("it waits for %d others", len(got)-1)
		}
		r.turn()
		return
	}
	t.Fatal("it was not delivered")
}
