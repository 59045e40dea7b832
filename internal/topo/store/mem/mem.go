// Package mem is a store.Store in memory, for tests, the laboratory and scale runs. Links to it can be cut.
package mem

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Store is a client of a Server.
type Store struct {
	srv *Server

	// Guarded by srv.mu.
	watches       map[*watch[store.Event]]struct{}
	feeds         map[*feed]struct{}
	keyWatches    map[*keyWatch]struct{}
	sharedWatches map[*watch[store.SharedEvent]]string // their prefix
	sessions      map[*session]struct{}
	away, closed  bool
}

var _ store.Store = (*Store)(nil)

// Server holds what all its clients see.
type Server struct {
	mu       sync.Mutex
	graph    *model.Graph
	revision int64
	shared   map[string]*entry
	clients  map[*Store]struct{}
	text     text
	bundles  *Parts
}

// NewServer starts an empty one.
func NewServer() *Server {
	return &Server{graph: model.NewGraph(), shared: make(map[string]*entry), clients: make(map[*Store]struct{}),
		text: text{make(map[string]string), make(map[string]int64)}, bundles: NewParts()}
}

// New is a client of a server of its own.
func New() *Store { return NewServer().Client() }

// Client connects another client.
func (v *Server) Client() *Store {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &Store{srv: v, watches: make(map[*watch[store.Event]]struct{}), feeds: make(map[*feed]struct{}), keyWatches: make(map[*keyWatch]struct{}),
		sharedWatches: make(map[*watch[store.SharedEvent]]string), sessions: make(map[*session]struct{})}
	v.clients[s] = struct{}{}
	return s
}

// Disconnect cuts the link: watches break, and calls fail with ErrUnavailable until Reconnect.
func (s *Store) Disconnect() {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	s.away = true
	s.breakWatches()
}

// Reconnect heals the link.
func (s *Store) Reconnect() {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	s.away = false
}

func (s *Store) breakWatches() {
	for w := range s.watches {
		w.end()
	}
	clear(s.watches)
	for f := range s.feeds {
		f.watch.end()
	}
	clear(s.feeds)
	for w := range s.keyWatches {
		s.endKeyWatch(w)
	}
	for w := range s.sharedWatches {
		w.end()
	}
	clear(s.sharedWatches)
}

// reachable is nil when a call may go on. The caller holds srv.mu.
func (s *Store) reachable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.away || s.closed {
		return store.ErrUnavailable
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	o := s.srv.graph.Get(kind, id)
	if o == nil {
		return nil, &model.ObjectError{Ref: model.Ref{Kind: kind, ID: id}, Err: store.ErrNotFound}
	}
	return model.Clone(o), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, 0, err
	}
	return s.srv.graph.List(kind), s.srv.revision, nil
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	return s.TxnWithout(ctx, "", ops...)
}

// TxnWithout implements store.Shared. At the empty path there is nothing.
func (s *Store) TxnWithout(ctx context.Context, path string, ops ...store.Op) (int64, error) {
	v := s.srv
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return 0, err
	}
	if path != "" && v.shared[path] != nil {
		return 0, fmt.Errorf("transaction refused: %w", store.ErrPresent)
	}
	staged, err := v.graph.Stage(ops...)
	if err != nil {
		return 0, fmt.Errorf("transaction refused: %w", err)
	}
	if len(staged.Changes) > 0 {
		v.revision++
	}
	parts := v.bundles.Change(v.graph, staged.Changes, v.revision)
	staged.Commit(v.revision)
	for c := range v.clients {
		for f := range c.feeds {
			f.tell(parts)
		}
		for w := range c.watches {
			w.push(events(staged.Changes, v.revision))
		}
	}
	return v.revision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context) (<-chan store.Event, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	w := &watch[store.Event]{wake: make(chan struct{}, 1)}
	var initial []store.Event
	for _, k := range model.Kinds {
		for _, o := range s.srv.graph.List(k) {
			initial = append(initial, store.Event{Revision: s.srv.revision, Object: o})
		}
	}
	w.push(append(initial, store.Event{Revision: s.srv.revision, Synced: true, Last: true}))
	s.watches[w] = struct{}{}
	out := make(chan store.Event)
	go func() {
		w.run(ctx, out)
		s.srv.mu.Lock()
		delete(s.watches, w)
		s.srv.mu.Unlock()
		close(out)
	}()
	return out, nil
}

// Close implements store.Store. What is stored stays with the server.
func (s *Store) Close() error {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	s.closed = true
	s.breakWatches()
	s.expire()
	delete(s.srv.clients, s)
	return nil
}

// events are a transaction's, with objects of their own.
func events(changes []model.Change, revision int64) []store.Event {
	es := make([]store.Event, len(changes))
	for i, c := range changes {
		e := store.Event{Revision: revision, Last: i == len(changes)-1}
		if c.New != nil {
			e.Object = model.Clone(c.New)
		} else {
			e.Object, e.Deleted = model.Clone(c.Old), true
		}
		es[i] = e
	}
	return es
}
