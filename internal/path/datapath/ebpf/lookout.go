package ebpf

import "time"

// lookout is for how long a worker with nothing to do looks at its ring before it sleeps. To sleep and to be woken takes longer than the next packet of a busy
// host; to look takes CPU time from others, so it is never longer than was of use lately. It is what KVM does for guests that halt
// (Documentation/virt/kvm/halt-polling.rst).
type lookout struct {
	time time.Duration // of the next one
}

// firstLook is as long as it takes at least to sleep and to be woken.
const firstLook = 10 * time.Microsecond

// waited learns from how long a packet did not come, whether the worker slept meanwhile or not: it looks longer when a longer look would have seen the packet,
// and not at all when none would have.
func (l *lookout) waited(d, most time.Duration) {
	switch {
	case d > most:
		l.time = 0
	case d > l.time:
		l.time = min(max(2*l.time, firstLook), most)
	}
}

// lookOut returns when there is something on the ring, or the time is over.
func (q *queue) lookOut(start time.Time, d time.Duration) {
	for d > 0 && q.empty() && time.Since(start) < d { //nolint:revive // this is how it looks
	}
}
