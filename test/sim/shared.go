package sim

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// entry is what a session holds.
type entry struct {
	value    []byte
	revision int64
	holder   *session
}

// session implements store.Session: a lease that its client keeps alive as long as it reaches the server.
type session struct {
	c    *client
	ttl  time.Duration
	ends int64 // unless it is heard of before
	over bool  // at the server
	gone bool  // for its client
	done chan struct{}
}

// Join implements store.Shared.
func (c *client) Join(_ context.Context, ttl time.Duration) (store.Session, error) {
	if err := c.reachable(); err != nil {
		return nil, err
	}
	x := &session{c: c, ttl: ttl, ends: c.srv.s.now() + int64(ttl), done: make(chan struct{})}
	c.srv.sessions = append(c.srv.sessions, x)
	return x, nil
}

// keepAlive is one round of all clients, which is due every second. While the server is down no lease runs out: when it comes back,
// each has its whole time.
func (v *server) keepAlive() {
	now := v.s.now()
	for _, x := range slices.Clone(v.sessions) {
		switch {
		case v.down:
			if x.c.closed || x.gone {
				break
			}
			if now >= x.ends {
				x.lost()
			}
			continue
		case x.c.reachable() == nil && !x.gone && !x.over:
			x.ends = now + int64(x.ttl)
		case now >= x.ends:
			x.end()
			if !x.c.closed {
				x.lost()
			}
		}
	}
}

// restart is what leases find when the server comes back.
func (v *server) restart() {
	for _, x := range v.sessions {
		x.ends = v.s.now() + int64(x.ttl)
	}
}

// lost is when the client knows that its session has ended.
func (x *session) lost() {
	if !x.gone {
		x.gone = true
		close(x.done)
		x.c.wake()
	}
}

// end removes the session's entries at the server.
func (x *session) end() {
	if x.over {
		return
	}
	x.over = true
	v := x.c.srv
	v.sessions = slices.DeleteFunc(v.sessions, func(y *session) bool { return x == y })
	for _, path := range slices.Sorted(maps.Keys(v.shared)) {
		if v.shared[path].holder == x {
			v.set(path, nil)
		}
	}
}

// set changes an entry, or removes it, and tells those who watch.
func (v *server) set(path string, e *entry) {
	v.revision++
	ev := store.SharedEvent{Path: path, Revision: v.revision, Deleted: e == nil}
	if e == nil {
		v.s.logf("store: %s of %s goes", path, v.shared[path].holder.c.name)
		delete(v.shared, path)
	} else {
		e.revision, ev.Value = v.revision, e.value
		v.shared[path] = e
		v.s.logf("store: %s: %s of %s", path, e.value, e.holder.c.name)
	}
	for _, c := range v.clients {
		for _, w := range c.learnt {
			if w.match(ev) {
				w.push(ev)
			}
		}
	}
}

func (x *session) write() error {
	if err := x.c.reachable(); err != nil {
		return err
	}
	if x.over || x.gone {
		x.lost()
		return store.ErrUnavailable
	}
	return nil
}

// Put implements store.Session.
func (x *session) Put(_ context.Context, path string, value []byte) error {
	if err := x.write(); err != nil {
		return err
	}
	x.c.srv.set(path, &entry{value: slices.Clone(value), holder: x})
	return x.c.answered()
}

// Claim implements store.Session.
func (x *session) Claim(_ context.Context, path string, value []byte) (bool, error) {
	if err := x.write(); err != nil {
		return false, err
	}
	if have := x.c.srv.shared[path]; have != nil && have.holder != x {
		return false, nil
	}
	x.c.srv.set(path, &entry{value: slices.Clone(value), holder: x})
	return true, x.c.answered()
}

// Delete implements store.Session.
func (x *session) Delete(_ context.Context, path string) error {
	if err := x.write(); err != nil {
		return err
	}
	if have := x.c.srv.shared[path]; have != nil && have.holder == x {
		x.c.srv.set(path, nil)
	}
	return x.c.answered()
}

// Done implements store.Session.
func (x *session) Done() <-chan struct{} { return x.done }

// Close implements store.Session.
func (x *session) Close(context.Context) error {
	x.end()
	x.lost()
	return nil
}

// WatchShared implements store.Shared.
func (c *client) WatchShared(_ context.Context, prefix string) (<-chan store.SharedEvent, error) {
	if err := c.reachable(); err != nil {
		return nil, err
	}
	w := newWatch[store.SharedEvent](c)
	w.match = func(e store.SharedEvent) bool { return strings.HasPrefix(e.Path, prefix) }
	c.learnt = append(c.learnt, w)
	var first []store.SharedEvent
	for _, path := range slices.Sorted(maps.Keys(c.srv.shared)) {
		if strings.HasPrefix(path, prefix) {
			e := c.srv.shared[path]
			first = append(first, store.SharedEvent{Path: path, Value: e.value, Revision: e.revision})
		}
	}
	w.push(append(first, store.SharedEvent{Revision: c.srv.revision, Synced: true})...)
	return w.ch, nil
}
