package mem

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

var _ store.Shared = (*Store)(nil)

type entry struct {
	value    []byte
	revision int64
	holder   *session
}

// session implements store.Session. Here no time passes: it ends with Close, with its client, or by Expire.
type session struct {
	client *Store
	done   chan struct{}
	over   bool // guarded by srv.mu
}

// Join implements store.Shared.
func (s *Store) Join(ctx context.Context, _ time.Duration) (store.Session, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	x := &session{client: s, done: make(chan struct{})}
	s.sessions[x] = struct{}{}
	return x, nil
}

// Expire ends the client's sessions, as when it has not been heard of for too long.
func (s *Store) Expire() {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	s.expire()
}

func (s *Store) expire() {
	for x := range s.sessions {
		x.end()
	}
}

// end removes the session's entries. The caller holds srv.mu.
func (x *session) end() {
	if x.over {
		return
	}
	x.over = true
	close(x.done)
	delete(x.client.sessions, x)
	v := x.client.srv
	for _, path := range slices.Sorted(maps.Keys(v.shared)) {
		if v.shared[path].holder == x {
			v.setShared(path, nil)
		}
	}
}

// setShared changes an entry, nil: removes it, and tells the watchers. The caller holds mu.
func (v *Server) setShared(path string, e *entry) {
	v.revision++
	ev := store.SharedEvent{Path: path, Revision: v.revision, Deleted: e == nil}
	if e == nil {
		delete(v.shared, path)
	} else {
		e.revision, ev.Value = v.revision, e.value
		v.shared[path] = e
	}
	for c := range v.clients {
		for w, prefix := range c.sharedWatches {
			if strings.HasPrefix(path, prefix) {
				w.push([]store.SharedEvent{own(ev)})
			}
		}
	}
}

// write runs f while the session lasts and the server can be reached.
func (x *session) write(ctx context.Context, f func(v *Server)) error {
	v := x.client.srv
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := x.client.reachable(ctx); err != nil {
		return err
	}
	if x.over {
		return store.ErrUnavailable
	}
	f(v)
	return nil
}

// own gives the receiver a value of its own.
func own(e store.SharedEvent) store.SharedEvent {
	e.Value = slices.Clone(e.Value)
	return e
}

// Put implements store.Session.
func (x *session) Put(ctx context.Context, path string, value []byte) error {
	return x.write(ctx, func(v *Server) { v.setShared(path, &entry{value: slices.Clone(value), holder: x}) })
}

// Claim implements store.Session.
func (x *session) Claim(ctx context.Context, path string, value []byte) (mine bool, err error) {
	err = x.write(ctx, func(v *Server) {
		if have := v.shared[path]; have == nil || have.holder == x || bytes.Equal(have.value, value) {
			mine = true
			v.setShared(path, &entry{value: slices.Clone(value), holder: x})
		}
	})
	return mine, err
}

// Delete implements store.Session.
func (x *session) Delete(ctx context.Context, path string) error {
	return x.write(ctx, func(v *Server) {
		if have := v.shared[path]; have != nil && have.holder == x {
			v.setShared(path, nil)
		}
	})
}

// Done implements store.Session.
func (x *session) Done() <-chan struct{} { return x.done }

// Close implements store.Session.
func (x *session) Close(context.Context) error {
	v := x.client.srv
	v.mu.Lock()
	defer v.mu.Unlock()
	x.end()
	return nil
}

// WatchShared implements store.Shared.
func (s *Store) WatchShared(ctx context.Context, prefix string) (<-chan store.SharedEvent, error) {
	v := s.srv
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	w := &watch[store.SharedEvent]{wake: make(chan struct{}, 1)}
	var initial []store.SharedEvent
	for _, path := range slices.Sorted(maps.Keys(v.shared)) {
		if e := v.shared[path]; strings.HasPrefix(path, prefix) {
			initial = append(initial, own(store.SharedEvent{Path: path, Value: e.value, Revision: e.revision}))
		}
	}
	w.push(append(initial, store.SharedEvent{Revision: v.revision, Synced: true}))
	s.sharedWatches[w] = prefix
	out := make(chan store.SharedEvent)
	go func() {
		w.run(ctx, out)
		v.mu.Lock()
		delete(s.sharedWatches, w)
		v.mu.Unlock()
		close(out)
	}()
	return out, nil
}
