package mirror

import (
	"context"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Steps does what Run does, one thing at a time and on the caller's goroutine, for whoever decides when things happen (test/sim).
type Steps struct {
	m  *Mirror
	s  store.Store
	ch <-chan store.Event // nil: nothing is followed
	st stream
}

// Steps begins. It takes the place of Run.
func (m *Mirror) Steps(s store.Store) *Steps { return &Steps{m: m, s: s} }

// Step does one thing that is to be done, and reports whether there was any. After an error the store is not followed, and the next call
// begins anew: that is what Run waits before.
func (x *Steps) Step(ctx context.Context) (did bool, err error) {
	m := x.m
	if x.ch == nil {
		if x.ch, err = x.s.Watch(ctx); err != nil {
			return false, err
		}
		x.st = stream{}
		return true, nil
	}
	select {
	case found := <-m.news:
		m.publish(m.checked(found), m.Snapshot().Revision)
		return true, nil
	default:
	}
	select {
	case h := <-m.hostNews:
		m.takeHosts(h)
		return true, nil
	default:
	}
	select {
	case e, ok := <-x.ch:
		if !ok {
			x.ch = nil
			m.following.Store(false)
			return false, errBroken
		}
		m.take(&x.st, e)
		return true, nil
	default:
		return false, nil
	}
}
