// Package clock gives time to those who need it, so that tests can turn it by hand.
package clock

import (
	"sync/atomic"
	"time"
)

// Clock tells monotonic time. Implementations are safe for concurrent use.
type Clock interface {
	// Now is nanoseconds since an arbitrary start; it never goes back.
	Now() int64
}

// System reads the machine's monotonic clock.
type System struct{ start time.Time }

// NewSystem starts a clock at 0.
func NewSystem() *System { return &System{time.Now()} }

// Now implements Clock.
func (s *System) Now() int64 { return int64(time.Since(s.start)) }

// Manual stands still until it is moved.
type Manual struct {
	ns atomic.Int64
}

// Now implements Clock.
func (m *Manual) Now() int64 { return m.ns.Load() }

// Advance moves the clock forward by d, which must not be negative.
func (m *Manual) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: Advance by a negative duration")
	}
	m.ns.Add(int64(d))
}
