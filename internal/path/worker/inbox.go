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

func (b *inbox) put(f func()) {
	b.mu.Lock()
	b.calls = append(b.calls, f)
	b.some.Store(true)
	b.mu.Unlock()
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

// Do has f run on the worker's goroutine, in the order of calls, within Config.Idle and a batch. It does not
// wait. Safe for concurrent use, also from the worker itself.
func (w *Worker) Do(f func()) { w.inbox.put(f) }

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
