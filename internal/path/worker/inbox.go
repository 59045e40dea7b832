package worker

import (
	"context"
	"sync"
	"sync/atomic"
)

// inbox is how the rest of the agent reaches a worker: functions that run on the worker's own goroutine
// between batches. An empty one costs the packet's way one atomic load.
type inbox struct {
	some  atomic.Bool
	mu    sync.Mutex
	calls []func()
	spare []func()
}

// put reports whether it is the first since the last run.
func (b *inbox) put(f func()) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, f)
	return !b.some.Swap(true)
}

func (b *inbox) run() {
	if !b.some.Load() {
		return
	}
	b.mu.Lock()
	calls := b.calls
	b.calls = b.spare
	b.some.Store(false)
	b.mu.Unlock()
	for i, f := range calls {
		f()
		calls[i] = nil
	}
	b.spare = calls[:0]
}

// Do has f run on the worker's goroutine, in the order of calls, after the batch at hand. It does not
// wait. Safe for concurrent use, also from the worker itself.
func (w *Worker) Do(f func()) {
	if w.inbox.put(f) {
		w.dp.Wake(w.cfg.ID)
		select {
		case w.bell <- struct{}{}:
		default:
		}
	}
}

// Call is Do and waits until f has run, or ctx has ended; f may then still run later.
func (w *Worker) Call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	w.Do(func() { f(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
