package worker

import (
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

func TestMeter(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name       string
		began, now clock.CPU
		cost       int64 // that ends 10 ms after the meter began
		want       int64
	}{
		{"short costs are believed", clock.CPU{Thread: 1}, clock.CPU{Thread: 1}, ms / 5, ms / 5},
		{"all of it on a CPU", clock.CPU{Thread: 1, Own: 5 * ms, All: 9 * ms}, clock.CPU{Thread: 1, Own: 15 * ms, All: 30 * ms}, 4 * ms, 4 * ms},
		{"three of four ms without", clock.CPU{Thread: 1, Own: 5 * ms}, clock.CPU{Thread: 1, Own: 12 * ms, All: 40 * ms}, 4 * ms, ms},
		{"nearly all without: something is charged", clock.CPU{Thread: 1, Own: 5 * ms}, clock.CPU{Thread: 1, Own: 5 * ms}, 4 * ms, ms / 20},
		{"more than all: waited before", clock.CPU{Thread: 1}, clock.CPU{Thread: 1, Own: 3 * ms}, 4 * ms, ms / 20},
		{"another thread: what all threads had", clock.CPU{Thread: 1, Own: 50 * ms, All: 60 * ms}, clock.CPU{Thread: 2, Own: ms, All: 68 * ms}, 4 * ms, 2 * ms},
		{"another thread, others were busy", clock.CPU{Thread: 1}, clock.CPU{Thread: 2, All: 19 * ms}, 4 * ms, 4 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			had := c.began
			m := meter{cpu: func() clock.CPU { return had }}
			m.begin(5 * ms)
			had = c.now
			if got := m.spent(c.cost, 15*ms); got != c.want {
				t.Errorf("%v, want %v", time.Duration(got), time.Duration(c.want))
			}
			if c.cost <= believed {
				return
			}
			// It goes on from there: the same time is not taken off twice.
			if got := m.spent(c.cost, 15*ms+c.cost); got > believed/4 {
				t.Errorf("then %v, though the CPU was not had", time.Duration(got))
			}
			had.Own, had.All = had.Own+c.cost, had.All+c.cost
			if got := m.spent(c.cost, 15*ms+2*c.cost); got != c.cost {
				t.Errorf("then %v of %v on a CPU", time.Duration(got), time.Duration(c.cost))
			}
		})
	}
}

func TestMeterWithoutCPUTime(t *testing.T) {
	var m meter
	m.begin(1)
	if got := m.spent(int64(time.Second), int64(time.Second)); got != int64(time.Second) {
		t.Errorf("%v", time.Duration(got))
	}
}

// The real clocks: work counts, sleep does not.
func TestCPUNow(t *testing.T) {
	m := meter{cpu: clock.CPUNow}
	c := clock.NewSystem()
	m.begin(c.Now() + readEach + 1)
	m.at = c.Now()
	start := c.Now()
	time.Sleep(50 * time.Millisecond)
	now := c.Now()
	if got := m.spent(now-start, now); got > int64(40*time.Millisecond) {
		t.Errorf("asleep for %v, of which %v on a CPU", time.Duration(now-start), time.Duration(got))
	}
	first := clock.CPUNow()
	for until := time.Now().Add(20 * time.Millisecond); time.Now().Before(until); {
	}
	if then := clock.CPUNow(); then.All <= first.All || then.Thread == first.Thread && then.Own <= first.Own {
		t.Errorf("%+v before, %+v after work", first, then)
	}
}

// dearCopies takes its time for each packet that leaves.
type dearCopies struct {
	*fake.Datapath
	clk *clock.Manual
}

const perCopy = 100 * time.Microsecond

func (d dearCopies) Execute(es []datapath.Exec) {
	for _, e := range es {
		for _, a := range e.Actions {
			if a.Op == action.Output {
				d.clk.Advance(perCopy)
			}
		}
	}
	d.Datapath.Execute(es)
}

// Who sends broadcasts pays for their copies; a packet that leaves with them does not.
func TestCopiesAreCharged(t *testing.T) {
	r := newRig(t, `
bridge blue
vm a blue 02:00:00:00:00:0a 10.0.1.10
vm b blue 02:00:00:00:00:0b 10.0.1.11
vm c blue 02:00:00:00:00:0c 10.0.1.12
vm d blue 02:00:00:00:00:0d 10.0.1.13
vm e blue 02:00:00:00:00:0e 10.0.1.14
`, Config{})
	r.dpForWorker = dearCopies{r.dp, r.clk}
	r.start(Config{})
	r.in("a udp eth=a>ff:ff:ff:ff:ff:ff ip=10.0.1.10>255.255.255.255 ports=1000>53", "b udp eth=b>c ip=10.0.1.11>10.0.1.12 ports=1000>53")
	if err := r.w.Turn(0); err != nil {
		t.Fatal(err)
	}
	r.turn()
	busy := map[string]time.Duration{}
	for _, p := range r.w.Queue().Stats() {
		for _, name := range []string{"a", "b"} {
			if no, _ := r.ports.Local(pathtest.ID(name)); no == p.Port {
				busy[name] = time.Duration(p.Busy)
			}
		}
	}
	copies := len(r.got()) - 1
	if copies != 4 {
		t.Fatalf("%d copies of a broadcast to four", copies)
	}
	// Five packets leave for two misses: each of the seven counts as much.
	if a, b, all := busy["a"], busy["b"], 5*perCopy; a != all*5/7 || b != all*2/7 {
		t.Errorf("the sender of the broadcast is charged %v, the other one %v, of %v", a, b, all)
	}
}
