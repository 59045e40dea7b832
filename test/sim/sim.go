package sim

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
)

// Sim is one run.
type Sim struct {
	seed  uint64
	rnd   *rand.Rand
	clock *clock.Manual
	queue queue
	count uint64 // events put on the queue

	store *server
	hosts []*host
	vms   []*vm

	judge  judge
	oracle oracle
	links  links

	// Log gets every line of what happens; nil: nobody reads it.
	Log   func(line string)
	trace uint64 // hash of all lines
	steps int

	dir      string // of the agents' files
	headless bool   // agents that start without the store begin with what was kept
	quiet    bool   // nobody changes anything and nothing fails any more
	failures []Failure
}

// Failure is an invariant that did not hold.
type Failure struct {
	At     time.Duration
	Broken string // the invariant
	Text   string
	Packet uint64 // that shows it; 0: none
}

func (f Failure) String() string { return fmt.Sprintf("%v %s: %s", f.At, f.Broken, f.Text) }

// maxFailures ends a run: what comes after so many says nothing new.
const maxFailures = 8

func (s *Sim) fail(broken string, packet uint64, format string, args ...any) {
	f := Failure{At: time.Duration(s.now()), Broken: broken, Text: fmt.Sprintf(format, args...), Packet: packet}
	s.failures = append(s.failures, f)
	s.logf("VIOLATED %s: %s", broken, f.Text)
}

func (s *Sim) now() int64 { return s.clock.Now() }

// logf writes down what happens: what is written is what two runs of a seed have in common.
func (s *Sim) logf(format string, args ...any) {
	line := fmt.Sprintf("%12.6f ", float64(s.now())/1e9) + fmt.Sprintf(format, args...)
	h := fnv.New64a()
	h.Write([]byte(line))
	s.trace = s.trace*1099511628211 ^ h.Sum64()
	if s.Log != nil {
		s.Log(line)
	}
}

// event is something that happens at a time; of those at the same time, the one that was put there first comes first.
type event struct {
	at  int64
	seq uint64
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	n := len(*q) - 1
	x := (*q)[n]
	(*q)[n] = event{}
	*q = (*q)[:n]
	return x
}

// after has something happen in a while.
func (s *Sim) after(d time.Duration, do func()) {
	s.count++
	heap.Push(&s.queue, event{s.now() + int64(max(d, 0)), s.count, do})
}

// runFor lets time pass, with all that happens meanwhile. It ends early when too much has failed.
func (s *Sim) runFor(d time.Duration) {
	end := s.now() + int64(d)
	for len(s.queue) > 0 && s.queue[0].at <= end && len(s.failures) < maxFailures {
		e := heap.Pop(&s.queue).(event)
		s.clock.Advance(time.Duration(max(e.at-s.now(), 0)))
		s.steps++
		e.do()
	}
	s.clock.Advance(time.Duration(max(end-s.now(), 0)))
}

// between is a random time.
func (s *Sim) between(from, to time.Duration) time.Duration { return between(s.rnd, from, to) }

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)+1))
}

// chance is true with a probability of one in n.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func pick[T any](r *rand.Rand, list []T) (x T) {
	if len(list) == 0 {
		return x
	}
	return list[r.IntN(len(list))]
}

// id is the id of the object with a name: short, so that one recognizes it.
func id(name string) uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte(name)) }
