package fake

import (
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// queue holds one worker's misses.
type queue struct {
	mu     sync.Mutex
	misses []datapath.Miss
	closed bool
	wake   chan struct{} // holds one: there may be something new
	stop   chan struct{} // holds one: Wake was called
}

func (q *queue) push(m datapath.Miss) {
	q.mu.Lock()
	q.misses = append(q.misses, m)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue) reopen() {
	q.mu.Lock()
	q.misses, q.closed = nil, false
	q.mu.Unlock()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) pop(ms []*datapath.Miss) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, datapath.ErrClosed
	}
	n := min(len(ms), len(q.misses))
	for i := range n {
		from, to := &q.misses[i], ms[i]
		frame := append(to.Frame[:0], from.Frame...)
		*to = *from
		to.Frame = frame
	}
	q.misses = append(q.misses[:0], q.misses[n:]...)
	return n, nil
}

// ReadMisses implements datapath.Datapath. The timeout is in real time,
// whatever the datapath's clock says.
func (d *Datapath) ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	q := d.workers[worker]
	n, err := q.pop(ms)
	if n == 0 && err == nil && timeout > 0 && len(ms) > 0 {
		end := time.NewTimer(timeout)
		defer end.Stop()
		for over := false; n == 0 && err == nil && !over; n, err = q.pop(ms) {
			select {
			case <-q.wake:
			case <-q.stop:
				over = true
			case <-end.C:
				over = true
			}
		}
	}
	if n > 0 {
		d.mu.Lock()
		d.counts.MissesRead += n
		d.mu.Unlock()
	}
	return n, err
}

// Wake implements datapath.Datapath.
func (d *Datapath) Wake(worker int) {
	select {
	case d.workers[worker].stop <- struct{}{}:
	default:
	}
}

// Queued is the number of misses that wait to be read, and so of tokens in flight here.
func (d *Datapath) Queued() (n int) {
	for _, q := range d.workers {
		q.mu.Lock()
		n += len(q.misses)
		q.mu.Unlock()
	}
	return n
}

// Workers implements datapath.Datapath.
func (d *Datapath) Workers() int { return len(d.workers) }

// worker picks the queue by what both directions of a connection share.
func (d *Datapath) worker(k *match.Key) *queue {
	return d.workers[k.ConnectionHash()%uint32(len(d.workers))]
}
