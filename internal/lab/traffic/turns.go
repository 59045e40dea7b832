package traffic

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Turns are floods that one thread sends in turn, a few frames of each: whenever it runs, all of them want to be served. Floods of processes of their
// own take turns as the scheduler likes, milliseconds at a time, and in between their ports want nothing.
type Turns struct{ senders []*turn }

type turn struct {
	Flood
	fd     int
	frames maker
	batch  *batch
	next   uint32
	paused atomic.Bool
}

// turnLen is less than what a port may have waiting, so that none of a turn is refused for what the same turn has sent.
const turnLen = 8

// Add opens a flood's socket in the network namespace of the calling thread. Its Rate, Count, Duration, Threads and Nice mean nothing here.
func (t *Turns) Add(f Flood) error {
	ifi, frames, err := f.maker()
	if err != nil {
		return err
	}
	fd, err := packetSocket(ifi.Index)
	if err != nil {
		return err
	}
	t.senders = append(t.senders, &turn{Flood: f, fd: fd, frames: frames, batch: newBatch(frames), next: f.First})
	return nil
}

// Pause has the i-th flood send nothing, or go on. Safe for concurrent use with Run.
func (t *Turns) Pause(i int, on bool) { t.senders[i].paused.Store(on) }

// Run sends for d, or until ctx ends, on a thread of the given niceness that ends with it.
func (t *Turns) Run(ctx context.Context, d time.Duration, nice int) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: what it may run later would be as nice
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice); err != nil {
			failed <- fmt.Errorf("niceness: %w", err)
			return
		}
		failed <- t.send(ctx)
	}()
	return <-failed
}

func (t *Turns) send(ctx context.Context) error {
	for ctx.Err() == nil {
		for _, s := range t.senders {
			if s.paused.Load() {
				continue
			}
			s.batch.fill(s.frames, s.next, turnLen)
			s.next += turnLen
			if _, _, err := s.batch.send(s.fd, turnLen); err != nil {
				return fmt.Errorf("send on %s: %w", s.Interface, err)
			}
		}
	}
	return nil
}

// Close closes the sockets, once Run has returned.
func (t *Turns) Close() {
	for _, s := range t.senders {
		s.batch.pin.Unpin()
		unix.Close(s.fd)
	}
}
