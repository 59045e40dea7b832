package ebpf

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func TestLookout(t *testing.T) {
	const us, most = time.Microsecond, 50 * time.Microsecond
	var l lookout
	for i, c := range []struct{ waited, want time.Duration }{
		{3 * us, 10 * us},  // it slept, and was woken at once
		{3 * us, 10 * us},  // it did not sleep
		{12 * us, 20 * us}, // a little longer would have done
		{30 * us, 40 * us},
		{45 * us, 50 * us},
		{48 * us, 50 * us},
		{51 * us, 0}, // all in vain
		{time.Second, 0},
		{50 * us, 10 * us},
	} {
		if l.waited(c.waited, most); l.time != c.want {
			t.Errorf("%d: after %v it looks for %v, want %v", i, c.waited, l.time, c.want)
		}
	}
}

// A worker that looks out sees what comes, and one that has looked in vain is woken.
func TestReadMissesLooksOut(t *testing.T) {
	r, opts := newRig(t), testOptions(t)
	opts.Workers, opts.Poll = 1, time.Hour
	in := r.NewPort(t)
	d := openTest(t, opts)
	p, err := d.AddPort(in, datapath.VM)
	must(t, err)
	atomic.StoreInt64(p.Credit, 10)
	q := d.queues[0]
	for i, look := range []time.Duration{0, time.Hour, time.Nanosecond, time.Hour} {
		q.poll.time = look
		done := make(chan struct{})
		go func() {
			defer close(done)
			var m datapath.Miss
			for { // other frames may be about
				n, err := d.ReadMisses(0, []*datapath.Miss{&m}, time.Hour)
				if err != nil || n == 1 && m.Key.DstPort == uint16(100+i) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		}()
		r.Send(t, in, testFrame(uint16(100+i)))
		<-done
	}
	if n, err := d.ReadMisses(0, []*datapath.Miss{new(datapath.Miss)}, time.Millisecond); n != 0 || err != nil {
		t.Errorf("%d misses, %v", n, err) // it looks no longer than it may wait
	}
}
