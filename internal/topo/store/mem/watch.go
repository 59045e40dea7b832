package mem

import (
	"context"
	"sync"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// watch is a queue without bound, so that a slow reader never holds up a writer.
type watch struct {
	wake chan struct{} // buffered: one pending wake-up is enough

	mu    sync.Mutex
	queue []store.Event
	ended bool
}

func (w *watch) push(es []store.Event) {
	w.mu.Lock()
	w.queue = append(w.queue, es...)
	w.mu.Unlock()
	w.signal()
}

// end breaks the stream: what is still queued is lost, as on a broken connection.
func (w *watch) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.signal()
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) take() (es []store.Event, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	es, w.queue = w.queue, nil
	return es, w.ended
}

// run sends what is queued until the watch or ctx ends.
func (w *watch) run(ctx context.Context, out chan<- store.Event) {
	for {
		es, ended := w.take()
		if ended {
			return
		}
		for _, e := range es {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		if len(es) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}
