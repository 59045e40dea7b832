package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// waiter is how the one goroutine that reads a ring sleeps while it is empty. Its other functions are safe for concurrent use.
type waiter struct {
	mu     sync.RWMutex // close waits for those who use what it closes
	epoll  int          // of the ring and of wakes; -1: closed
	wakes  int          // a counter (eventfd(2))
	events [2]unix.EpollEvent
}

// newWaiter waits for the ring that a descriptor is of.
func newWaiter(ring int) (_ *waiter, err error) {
	w := &waiter{epoll: -1, wakes: -1}
	defer func() {
		if err != nil {
			err = fmt.Errorf("wait for a ring: %w", err)
			w.close()
		}
	}()
	if w.wakes, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for _, fd := range []int{ring, w.wakes} {
		// Not by edges: what has come since the reader last looked counts, too.
		if err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// pollUnit is what the kernel counts the time to wait in. It is rounded down: a worker that is late would have packets wait.
const pollUnit = time.Millisecond

// wait returns when there is something on the ring, the time is over, a signal has come, or somebody wakes it, or has since the last call.
func (w *waiter) wait(timeout time.Duration) (woken bool, err error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.epoll < 0 {
		return false, datapath.ErrClosed
	}
	n, err := unix.EpollWait(w.epoll, w.events[:], int(max(timeout, 0)/pollUnit))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for a ring: %w", err)
	}
	for i := range max(n, 0) {
		if int(w.events[i].Fd) == w.wakes {
			var b [8]byte
			_, _ = unix.Read(w.wakes, b[:]) // nobody else has: it is this goroutine's
			woken = true
		}
	}
	return woken, nil
}

// wake has wait return, the one that waits or else the next one.
func (w *waiter) wake() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.epoll >= 0 {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], 1)
		_, _ = unix.Write(w.wakes, b[:]) // a counter that is full wakes all the more
	}
}

// close wakes who waits, and later calls fail.
func (w *waiter) close() {
	w.wake()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fd := range []*int{&w.epoll, &w.wakes} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
