package mem

import (
	"context"
	"slices"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

var _ store.Bundles = (*Store)(nil)

// Parts are the bundles of a graph, for whoever is a store. Not safe for concurrent use.
type Parts struct {
	index *model.Index
	at    map[model.Bundle]*bundle
}

type bundle struct {
	seq  int64
	held map[model.Key]int64 // revisions
}

// NewParts makes those of an empty graph.
func NewParts() *Parts {
	return &Parts{index: model.NewIndex(model.NewGraph()), at: make(map[model.Bundle]*bundle)}
}

// Change takes a transaction over, after which the graph is in its new state, and says what becomes of bundles. The objects are the graph's.
func (x *Parts) Change(g *model.Graph, changes []model.Change, rev int64) []store.BundleEvent {
	plan := x.index.Plan(g, changes)
	x.index.Apply(plan)
	byBundle := make(map[model.Bundle]*store.BundleEvent)
	var order []*store.BundleEvent
	event := func(b model.Bundle) *store.BundleEvent {
		e := byBundle[b]
		if e == nil {
			e = &store.BundleEvent{Bundle: b, Revision: rev}
			byBundle[b] = e
			order = append(order, e)
		}
		return e
	}
	for _, p := range plan {
		at := x.at[p.Bundle]
		if at == nil {
			at = &bundle{held: make(map[model.Key]int64)}
			x.at[p.Bundle] = at
		}
		e := event(p.Bundle)
		if p.Object == nil {
			delete(at.held, p.Key)
			e.Gone = append(e.Gone, p.Key)
		} else {
			at.held[p.Key] = rev
			e.Objects = append(e.Objects, p.Object)
		}
	}
	for _, c := range changes {
		if c.New != nil {
			continue
		}
		for _, b := range model.Ended(model.KeyOf(c.Old)) {
			if x.at[b] != nil {
				event(b).Over = true
			}
		}
	}
	events := make([]store.BundleEvent, len(order))
	for i, e := range order {
		at := x.at[e.Bundle]
		if at.seq++; e.Over {
			delete(x.at, e.Bundle)
			e.Objects, e.Gone = nil, nil
		} else {
			e.Seq = at.seq
		}
		events[i] = *e
	}
	return events
}

// Whole is the present state of a bundle. The objects are the caller's.
func (x *Parts) Whole(g *model.Graph, b model.Bundle, rev int64) store.BundleEvent {
	e := store.BundleEvent{Bundle: b, Revision: rev, Whole: true}
	if at := x.at[b]; at != nil {
		e.Seq = at.seq
		for k, rev := range at.held {
			o := model.Clone(g.Get(k.Kind, k.ID))
			o.GetMeta().Revision = rev
			e.Objects = append(e.Objects, o)
		}
	}
	slices.SortFunc(e.Objects, func(a, b model.Object) int { return model.CompareKeys(model.KeyOf(a), model.KeyOf(b)) })
	return e
}

// Digest is that of a bundle.
func (x *Parts) Digest(b model.Bundle) (d store.Digest) {
	if at := x.at[b]; at != nil {
		d.Seq = at.seq
		for _, rev := range at.held {
			d.Add(rev)
		}
	}
	return d
}

// Own gives an event objects of its own.
func Own(e store.BundleEvent) store.BundleEvent {
	objects := make([]model.Object, len(e.Objects))
	for i, o := range e.Objects {
		objects[i] = model.Clone(o)
		objects[i].GetMeta().Revision = e.Revision
	}
	e.Objects = objects
	return e
}

// feed implements store.Feed.
type feed struct {
	srv    *Server
	watch  *watch[store.BundleEvent]
	wanted map[model.Bundle]bool // guarded by srv.mu
	out    chan store.BundleEvent
}

// Feed implements store.Bundles.
func (s *Store) Feed(ctx context.Context) (store.Feed, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	f := &feed{srv: s.srv, watch: &watch[store.BundleEvent]{wake: make(chan struct{}, 1)}, wanted: make(map[model.Bundle]bool), out: make(chan store.BundleEvent)}
	s.feeds[f] = struct{}{}
	go func() {
		f.watch.run(ctx, f.out)
		s.srv.mu.Lock()
		delete(s.feeds, f)
		s.srv.mu.Unlock()
		close(f.out)
	}()
	return f, nil
}

// Want implements store.Feed.
func (f *feed) Want(bs ...model.Bundle) {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	es := make([]store.BundleEvent, len(bs))
	for i, b := range bs {
		f.wanted[b] = true
		es[i] = f.srv.bundles.Whole(f.srv.graph, b, f.srv.revision)
	}
	f.watch.push(es)
}

// Leave implements store.Feed.
func (f *feed) Leave(bs ...model.Bundle) {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	for _, b := range bs {
		delete(f.wanted, b)
	}
}

// Mark implements store.Feed.
func (f *feed) Mark() {
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	if len(f.wanted) > 0 {
		f.watch.push([]store.BundleEvent{{Mark: true, Revision: f.srv.revision}})
	}
}

// Events implements store.Feed.
func (f *feed) Events() <-chan store.BundleEvent { return f.out }

// tell passes on what is wanted. The caller holds srv.mu.
func (f *feed) tell(es []store.BundleEvent) {
	var mine []store.BundleEvent
	for _, e := range es {
		if !f.wanted[e.Bundle] {
			continue
		}
		mine = append(mine, Own(e))
	}
	if len(mine) > 0 {
		f.watch.push(mine)
	}
}

// Digests implements store.Bundles.
func (s *Store) Digests(ctx context.Context, bs ...model.Bundle) ([]store.Digest, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	ds := make([]store.Digest, len(bs))
	for i, b := range bs {
		ds[i] = s.srv.bundles.Digest(b)
	}
	return ds, nil
}
