package upcall

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// script is a Source that plays what a test puts into it, on a manual clock.
type script struct {
	clock  clock.Manual
	ring   []arrival // in order; those with at <= now are ready
	reads  int
	waited time.Duration
	err    error
}

type arrival struct {
	port uint32
	seq  int
	at   int64
}

func (s *script) ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	s.reads++
	if timeout > 0 && len(s.ring) > 0 { // what is to come comes while waiting
		d := min(max(s.ring[0].at-s.clock.Now(), 0), int64(timeout))
		s.clock.Advance(time.Duration(d))
		s.waited += time.Duration(d)
	}
	n := 0
	for n < len(ms) && n < len(s.ring) && s.ring[n].at <= s.clock.Now() {
		a := s.ring[n]
		*ms[n] = datapath.Miss{Time: a.at, Frame: ms[n].Frame}
		ms[n].Key.InPort = a.port
		ms[n].Key.TunKey = uint32(a.seq)
		n++
	}
	s.ring = s.ring[n:]
	if n == 0 {
		return 0, s.err
	}
	return n, nil
}

func (s *script) add(port uint32, n int) {
	for i := range n {
		s.ring = append(s.ring, arrival{port, i, s.clock.Now()})
	}
}

func newQueue(s *script, quantum time.Duration) *Queue {
	return New(s, 0, Config{Quantum: quantum, Now: s.clock.Now})
}

// serve processes one miss at the given cost.
func serve(t testing.TB, q *Queue, s *script, cost func(port uint32) int64) (uint32, bool) {
	m, err := q.Next(0)
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		return 0, false
	}
	c := cost(m.Key.InPort)
	s.clock.Advance(time.Duration(c))
	port := m.Key.InPort
	q.Done(m, c)
	return port, true
}

func order(t testing.TB, q *Queue, s *script, cost func(port uint32) int64) (ports []uint32) {
	for {
		p, ok := serve(t, q, s, cost)
		if !ok {
			return ports
		}
		ports = append(ports, p)
	}
}

func TestTurns(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	s.add(1, 4)
	s.add(2, 4)
	s.add(3, 1)
	// Port 1 costs 5: two per turn. Port 2 costs 25: one in the first turn, overdrawn by 15, misses one.
	got := order(t, q, s, func(p uint32) int64 { return map[uint32]int64{1: 5, 2: 25, 3: 1}[p] })
	if want := []uint32{1, 1, 2, 3, 1, 1, 2, 2, 2}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestOrderWithinPort(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	s.add(1, 300) // several batches, and a ring that grows
	for want := range 300 {
		m, _ := q.Next(0)
		if m == nil || int(m.Key.TunKey) != want {
			t.Fatalf("got %v, want number %d", m, want)
		}
		if want == 150 {
			s.add(2, 3) // the ring wraps while it is being served
		}
		q.Done(m, 1)
		if want == 150 {
			break
		}
	}
}

// A victim that was idle is served after at most one turn of each active port, though their
// backlog is long and was there first.
func TestVictimWaitsOneTurnPerPort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &script{}
		quantum := rapid.Int64Range(1, 200).Draw(t, "quantum")
		q := newQueue(s, time.Duration(quantum))
		rogues := rapid.IntRange(1, 10).Draw(t, "rogues")
		costs := rapid.Int64Range(1, 300)
		dearest := int64(0)
		cost := func(uint32) int64 { c := costs.Draw(t, "cost"); dearest = max(dearest, c); return c }
		for i := range rogues {
			s.add(uint32(10+i), 200)
		}
		for range rapid.IntRange(0, 100).Draw(t, "warm") {
			m, _ := q.Next(0)
			c := cost(0)
			s.clock.Advance(time.Duration(c))
			q.Done(m, c)
		}
		start := s.clock.Now()
		s.add(1, 1)
		for {
			m, _ := q.Next(0)
			if m.Key.InPort == 1 {
				break
			}
			c := cost(0)
			s.clock.Advance(time.Duration(c))
			q.Done(m, c)
		}
		// One turn each, and what is left of the turn under way.
		if waited, most := s.clock.Now()-start, int64(rogues+1)*(quantum+dearest); waited > most {
			t.Fatalf("waited %d ns, at most %d", waited, most)
		}
	})
}

// Whatever the costs, two ports that are backlogged from the start differ in processing time
// by at most a quantum and the dearest packet, at any instant.
func TestFairnessBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &script{}
		quantum := rapid.Int64Range(1, 500).Draw(t, "quantum")
		q := newQueue(s, time.Duration(quantum))
		ports := rapid.IntRange(2, 8).Draw(t, "ports")
		most := make([]int64, ports)
		const backlog = 100
		left := make([]int, ports)
		for i := range ports {
			most[i] = rapid.Int64Range(1, 1000).Draw(t, "most")
			left[i] = backlog
			s.add(uint32(i), backlog)
		}
		served := make([]int64, ports)
		dearest := int64(0)
		for {
			m, _ := q.Next(0)
			i := m.Key.InPort
			c := rapid.Int64Range(1, most[i]).Draw(t, "cost")
			dearest = max(dearest, c)
			served[i] += c
			q.Done(m, c)
			if d := slices.Max(served) - slices.Min(served); d > quantum+dearest {
				t.Fatalf("times %v differ by %d > %d + %d", served, d, quantum, dearest)
			}
			if left[i]--; left[i] == 0 {
				return
			}
		}
	})
}

// Ports that are never backlogged, but always have one expensive packet on the way, get no more
// than their share of time: being idle for a moment does not clear the debt.
func TestOneExpensivePacketAtATime(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	busy := make(map[uint32]int64)
	s.add(1, 1)
	s.add(2, 20000)
	for range 4000 {
		p, _ := serve(t, q, s, func(p uint32) int64 {
			if p == 1 {
				s.add(1, 1) // the next one comes while this one is processed
				return 1000
			}
			return 1
		})
		busy[p] += map[uint32]int64{1: 1000, 2: 1}[p]
	}
	if busy[1] > busy[2]+1000+10 {
		t.Fatalf("the expensive port got %d ns, the other %d", busy[1], busy[2])
	}
}

// Jain's index (sum x)^2 / (n sum x^2) is 1 when all get the same.
func TestJainIndex(t *testing.T) {
	s := &script{}
	q := newQueue(s, 50)
	const n = 20
	for i := range n {
		s.add(uint32(i), 3000)
	}
	var x [n]float64
	for range 10000 {
		p, _ := serve(t, q, s, func(p uint32) int64 { return int64(1 + p) })
		x[p] += float64(1 + p)
	}
	var sum, squares float64
	for _, v := range x {
		sum += v
		squares += v * v
	}
	if j := sum * sum / (n * squares); j < .999 {
		t.Fatalf("index %.4f: %v", j, x)
	}
}

// Debts end when nobody is waiting.
func TestIdleForgives(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	s.add(1, 1)
	order(t, q, s, func(uint32) int64 { return 1e9 })
	s.add(1, 1)
	s.add(2, 1)
	if got := order(t, q, s, func(uint32) int64 { return 1 }); !slices.Equal(got, []uint32{1, 2}) {
		t.Fatalf("got %v", got)
	}
}

// A packet of a second among quanta of nanoseconds: the rounds are skipped, not walked.
func TestHugeCost(t *testing.T) {
	s := &script{}
	q := newQueue(s, 1)
	s.add(1, 3)
	s.add(2, 3)
	got := order(t, q, s, func(uint32) int64 { return 1e15 })
	if want := []uint32{1, 2, 1, 2, 1, 2}; !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
}

// oracle is deficit round robin written down naively: a list of ports, a list of costs each.
func oracle(quantum int64, costs [][]int64) (ports []int) {
	deficit := make([]int64, len(costs))
	for left := true; left; {
		left = false
		for i := range costs {
			if len(costs[i]) == 0 {
				continue
			}
			deficit[i] += quantum
			for deficit[i] > 0 && len(costs[i]) > 0 {
				deficit[i] -= costs[i][0]
				costs[i] = costs[i][1:]
				ports = append(ports, i)
			}
			left = left || len(costs[i]) > 0
		}
	}
	return ports
}

func TestAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quantum := rapid.Int64Range(1, 50).Draw(t, "quantum")
		costs := rapid.SliceOfN(rapid.SliceOfN(rapid.Int64Range(1, 200), 0, 20), 1, 6).Draw(t, "costs")
		s := &script{}
		q := newQueue(s, time.Duration(quantum))
		for i, c := range costs {
			s.add(uint32(i), len(c))
		}
		var got []int
		for {
			m, _ := q.Next(0)
			if m == nil {
				break
			}
			got = append(got, int(m.Key.InPort))
			q.Done(m, costs[m.Key.InPort][m.Key.TunKey])
		}
		if want := oracle(quantum, slices.Clone(costs)); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestWaitsOnlyWhenIdle(t *testing.T) {
	s := &script{ring: []arrival{{port: 1, at: 700}, {port: 1, at: 700}, {port: 2, at: 5000}}}
	q := newQueue(s, 10)
	m, err := q.Next(1000)
	if m == nil || err != nil || s.clock.Now() != 700 {
		t.Fatalf("%v, %v at %d", m, err, s.clock.Now())
	}
	q.Done(m, 100)
	if m, _ = q.Next(1000); m == nil || s.waited != 700 {
		t.Fatalf("waited %v with a miss at hand", s.waited)
	}
	q.Done(m, 100)
	if m, err = q.Next(1000); m != nil || err != nil {
		t.Fatalf("got %v, %v", m, err)
	}
}

func TestErrorComesLast(t *testing.T) {
	s := &script{err: datapath.ErrClosed}
	q := newQueue(s, 1)
	s.add(1, 2)
	for range 2 {
		m, err := q.Next(0)
		if m == nil || err != nil {
			t.Fatalf("%v, %v", m, err)
		}
		q.Done(m, 5)
	}
	if m, err := q.Next(0); m != nil || !errors.Is(err, datapath.ErrClosed) {
		t.Fatalf("%v, %v", m, err)
	}
}

func TestMaxQueued(t *testing.T) {
	s := &script{}
	q := New(s, 0, Config{MaxQueued: 10, Batch: 4})
	s.add(1, 25)
	for i := range 25 {
		m, _ := q.Next(0)
		if m == nil || q.Len() > 10 {
			t.Fatalf("%d: %v, %d queued", i, m, q.Len())
		}
		q.Done(m, 1e6)
	}
}

// Kept misses are the caller's: their memory is not read into.
func TestKeep(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	s.add(1, 1)
	kept, _ := q.Next(0)
	q.Keep(kept, 5)
	for range 200 {
		s.add(2, 1)
		m, _ := q.Next(0)
		if m == kept {
			t.Fatal("reused")
		}
		q.Done(m, 1)
	}
	if kept.Key.InPort != 1 {
		t.Fatal("overwritten")
	}
	q.Recycle(kept)
	s.add(3, 64)
	q.Next(0)
	if !slices.Contains(q.batch, kept) {
		t.Fatal("memory is lost")
	}
}

func TestStatsAndForget(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	s.add(2, 2)
	s.add(1, 1)
	s.clock.Advance(5 * time.Microsecond)
	serve(t, q, s, func(uint32) int64 { return 7000 })
	got := q.Stats()
	want := []PortStats{{Port: 1, Queued: 1}, {Port: 2, Queued: 1, Served: 1, Busy: 7000, Waited: 5000}}
	want[1].Delays[3] = 1 // 4 to 8 us
	if !slices.Equal(got, want) {
		t.Fatalf("got %+v", got)
	}
	q.Forget(9)
	q.Forget(2) // still has a miss
	if n := len(order(t, q, s, func(uint32) int64 { return 1 })); n != 2 || len(q.Stats()) != 1 {
		t.Fatalf("%d served, %d ports known", n, len(q.Stats()))
	}
	q.Forget(1)
	if len(q.Stats()) != 0 {
		t.Fatal("not forgotten")
	}
}

func TestStatsWhileServing(t *testing.T) {
	s := &script{}
	q := newQueue(s, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			for _, p := range q.Stats() {
				if p.Busy < 0 {
					t.Error("negative time")
				}
			}
		}
	}()
	for i := range uint32(500) {
		s.add(i, 2)
		order(t, q, s, func(uint32) int64 { return 3 })
		q.Forget(i)
	}
	<-done
}

// loop is a Source that repeats itself without allocating.
type loop struct{ ports uint32 }

func (l loop) ReadMisses(_ int, ms []*datapath.Miss, _ time.Duration) (int, error) {
	n := min(len(ms)-1, int(l.ports)*4)
	for i := range n {
		ms[i].Key.InPort = uint32(i) % l.ports
	}
	return n, nil
}

func TestNextAllocatesNothing(t *testing.T) {
	q := New(loop{3}, 0, Config{MaxQueued: 100, Now: func() int64 { return 1 }})
	next := func() {
		m, _ := q.Next(0)
		q.Done(m, int64(20000*m.Key.InPort))
	}
	for range 1000 {
		next()
	}
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkNext(b *testing.B) {
	for _, ports := range []uint32{1, 8, 256} {
		b.Run(fmt.Sprintf("ports=%d", ports), func(b *testing.B) {
			q := New(loop{ports}, 0, Config{MaxQueued: 1024, Now: func() int64 { return 1 }})
			b.ReportAllocs()
			for b.Loop() {
				m, _ := q.Next(0)
				q.Done(m, 5000)
			}
		})
	}
}

// TestLen: whatever has been taken off the ring and not been handed out waits.
func TestLen(t *testing.T) {
	s := new(script)
	s.add(1, 3)
	s.add(2, 3)
	q := New(s, 0, Config{Quantum: time.Millisecond, Now: s.clock.Now, Urgent: func(m *datapath.Miss) bool { return m.Key.InPort == 2 }})
	for left := 5; left >= 0; left-- {
		m, err := q.Next(0)
		if err != nil || m == nil {
			t.Fatalf("%v, %v", m, err)
		}
		if q.Len() != left {
			t.Errorf("%d wait, want %d", q.Len(), left)
		}
		q.Done(m, 0)
	}
}

// TestAhead: each miss is told of once, in its order, before it is served, and not much before.
func TestAhead(t *testing.T) {
	s := &script{}
	told, served := map[uint32]int{}, map[uint32]int{}
	q := New(s, 0, Config{Quantum: 10, Now: s.clock.Now, Ahead: func(m *datapath.Miss) {
		p := m.Key.InPort
		if n := told[p] - served[p]; int(m.Key.TunKey) != told[p] || n > aheadBy {
			t.Fatalf("port %d: told of number %d after %d, of which %d are served", p, m.Key.TunKey, told[p], served[p])
		}
		told[p]++
	}})
	s.add(1, 300)
	s.add(2, 3)
	for m, _ := q.Next(0); m != nil; m, _ = q.Next(0) {
		p := m.Key.InPort
		if told[p] <= int(m.Key.TunKey) {
			t.Fatalf("port %d: number %d is served, and was not told of", p, m.Key.TunKey)
		}
		served[p]++
		q.Done(m, 4)
	}
	if told[1] != 300 || told[2] != 3 {
		t.Errorf("told of %v", told)
	}
}
