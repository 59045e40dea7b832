package ovs

import (
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// queue holds one worker's misses. It grows to as many as there are tokens, and keeps their memory.
type queue struct {
	mu          sync.Mutex
	ring        []datapath.Miss
	first, used int
	err         error // why no more will come

	ready chan struct{} // holds one: there may be something
	woken chan struct{} // holds one: Wake was called
	timer *time.Timer   // the reader's
}

func newQueue() *queue {
	q := &queue{ring: make([]datapath.Miss, 16), ready: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	q.timer = time.NewTimer(time.Hour)
	q.timer.Stop()
	return q
}

// push copies m and its frame.
func (q *queue) push(m *datapath.Miss) {
	q.mu.Lock()
	if q.used == len(q.ring) {
		bigger := make([]datapath.Miss, 2*len(q.ring))
		n := copy(bigger, q.ring[q.first:])
		copy(bigger[n:], q.ring[:q.first])
		q.ring, q.first = bigger, 0
	}
	slot := &q.ring[(q.first+q.used)%len(q.ring)]
	q.used++
	frame := append(slot.Frame[:0], m.Frame...)
	*slot = *m
	slot.Frame = frame
	q.mu.Unlock()
	signal(q.ready)
}

// pop moves misses into ms, whose memory stays here in exchange.
func (q *queue) pop(ms []*datapath.Miss) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	for ; n < len(ms) && q.used > 0; n++ {
		slot := &q.ring[q.first]
		*slot, *ms[n] = *ms[n], *slot
		q.first = (q.first + 1) % len(q.ring)
		q.used--
	}
	return n, nil
}

// close has all reads return err.
func (q *queue) close(err error) {
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	signal(q.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// read is pop that waits for the first.
func (q *queue) read(ms []*datapath.Miss, timeout time.Duration) (int, error) {
	n, err := q.pop(ms)
	if n > 0 || err != nil || timeout <= 0 || len(ms) == 0 {
		return n, err
	}
	q.timer.Reset(timeout)
	defer q.timer.Stop()
	for {
		over := false
		select {
		case <-q.ready:
		case <-q.woken:
			over = true
		case <-q.timer.C:
			over = true
		}
		if n, err := q.pop(ms); n > 0 || err != nil || over {
			return n, err
		}
	}
}

// Workers implements datapath.Datapath.
func (d *Datapath) Workers() int { return len(d.queues) }

// ReadMisses implements datapath.Datapath.
func (d *Datapath) ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	return d.queues[worker].read(ms, timeout)
}

// Wake implements datapath.Datapath.
func (d *Datapath) Wake(worker int) { signal(d.queues[worker].woken) }
