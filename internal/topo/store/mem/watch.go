package mem

import (
	"context"
	"sync"
)

// watch is a queue without bound, so that a slow reader never holds up a writer.
type watch[E any] struct {
	wake chan struct{} // buffered: one pending wake-up is enough

	mu    sync.Mutex
	queue []E
	ended bool
}

func (w *watch[E]) push(es []E) {
	w.mu.Lock()
	w.queue = append(w.queue, es...)
	w.mu.Unlock()
	w.signal()
}

// end breaks the stream: what is still queued is lost, as on a broken connection.
func (w *watch[E]) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.signal()
}

func (w *watch[E]) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch[E]) take() (es []E, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	es, w.queue = w.queue, nil
	return es, w.ended
}

// run sends what is queued until the watch or ctx ends.
func (w *watch[E]) run(ctx context.Context, out chan<- E) {
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
