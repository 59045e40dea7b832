package live

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Steps does what Run does, one thing at a time and on the caller's goroutine, for whoever decides when things happen (test/sim).
type Steps struct {
	s       store.Shared
	host    uuid.UUID
	now     Hosts
	changed func(Hosts)

	session store.Session
	events  <-chan store.SharedEvent
	w       *watch
	settled time.Duration // when grace is over; 0: it has not begun, or is over
	alone   time.Duration // when there was no session the last time
}

// NewSteps begins with what was known before.
func NewSteps(s store.Shared, host uuid.UUID, was Hosts, changed func(Hosts)) *Steps {
	return &Steps{s: s, host: host, now: was.clone(), changed: changed}
}

// Announce sees to it that the host has a session. After an error the next call tries again.
func (x *Steps) Announce(ctx context.Context) error {
	if x.session != nil {
		select {
		case <-x.session.Done():
			x.session = nil
			return errors.New("the session with the store has ended")
		default:
			return nil
		}
	}
	session, err := x.s.Join(ctx, TTL)
	if err == nil {
		err = session.Put(ctx, Path(x.host), nil)
	}
	if err == nil {
		x.session = session
	}
	return err
}

// Watch does one thing that is to be done at a time, and reports whether there was any. After an error the next call begins anew.
func (x *Steps) Watch(ctx context.Context, now time.Duration) (did bool, err error) {
	if x.session == nil {
		x.alone = now
	}
	if x.events == nil {
		if x.events, err = x.s.WatchShared(ctx, prefix); err != nil {
			return false, err
		}
		x.w, x.settled = newWatch(&x.now, x.changed), 0
		return true, nil
	}
	select {
	case e, ok := <-x.events:
		if !ok {
			x.events = nil
			return false, store.ErrUnavailable
		}
		if x.w.take(e, now-x.alone >= TTL) {
			x.settled = now + TTL
		}
		return true, nil
	default:
	}
	if x.settled != 0 && now >= x.settled {
		x.settled = 0
		x.w.settle()
		return true, nil
	}
	return false, nil
}
