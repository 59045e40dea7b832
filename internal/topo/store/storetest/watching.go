package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// stream is a watch that has passed its initial state.
type stream struct {
	ch      <-chan store.Event
	initial []store.Event
	synced  store.Event
	cancel  context.CancelFunc
}

func follow(t *testing.T, s store.Store) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	ch, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &stream{ch: ch, cancel: cancel}
	for {
		e := w.next(t)
		if e.Synced {
			w.synced = e
			return w
		}
		w.initial = append(w.initial, e)
	}
}

func (w *stream) next(t *testing.T) store.Event {
	t.Helper()
	e, ok := <-w.ch
	if !ok {
		t.Fatal("the watch has ended")
	}
	return e
}

func testWatchInitial(t *testing.T, c Cluster) {
	s := c.Open(t)
	if w := follow(t, s); len(w.initial) != 0 {
		t.Errorf("an empty store begins with %v", w.initial)
	}
	rev := mustTxn(t, s, create(network()...)...)
	want := state(t, s)
	w := follow(t, s)
	got := make(map[model.Key]model.Object)
	last := 0
	for _, e := range w.initial {
		if at := slices.Index(model.Kinds, e.Object.Kind()); at < last {
			t.Errorf("%s after %s", e.Object.Kind(), model.Kinds[last])
		} else {
			last = at
		}
		if e.Deleted || e.Object.GetMeta().Revision != rev {
			t.Errorf("initial state has %+v of %+v", e, e.Object)
		}
		got[model.KeyOf(e.Object)] = e.Object
	}
	if d := diff(want, got); d != "" {
		t.Errorf("the initial state is not the list (-want +got):\n%s", d)
	}
	if w.synced.Object != nil || !w.synced.Last || w.synced.Revision < rev {
		t.Errorf("synced: %+v", w.synced)
	}
	// What comes next is the next change and nothing older.
	rev2 := mustTxn(t, s, create(bridge(90, ""))...)
	if e := w.next(t); e.Revision != rev2 || e.Object.GetMeta().ID != id(90) || e.Synced {
		t.Errorf("after Synced comes %+v", e)
	}
}

func testWatchTransactions(t *testing.T, c Cluster) {
	s := c.Open(t)
	w := follow(t, c.Open(t))
	rev := mustTxn(t, s, create(network()...)...)
	for i, o := range network() {
		e := w.next(t)
		if e.Revision != rev || model.KeyOf(e.Object) != model.KeyOf(o) || e.Deleted || e.Last != (i == len(network())-1) {
			t.Errorf("event %d is %+v of %+v", i, e, e.Object)
		}
	}
	// One end's peer goes, the other one's follows, visibly.
	alone := network()[5].(*model.Port)
	alone.PeerID = uuid.Nil
	rev = mustTxn(t, s,
		store.Op{Verb: store.Delete, Object: &model.Binding{Meta: model.Meta{ID: id(4)}}},
		store.Op{Verb: store.Replace, Object: alone},
		store.Op{Verb: store.Create, Object: bridge(90, "new")})
	del, lan, br, up := w.next(t), w.next(t), w.next(t), w.next(t)
	if !del.Deleted || del.Object.(*model.Binding).Interface != "tap0" || del.Last {
		t.Errorf("deletion: %+v of %+v", del, del.Object)
	}
	if lan.Object.GetMeta().ID != id(6) || br.Object.GetMeta().ID != id(90) {
		t.Errorf("not in the order of ops: %+v, %+v", lan.Object, br.Object)
	}
	if p := up.Object.(*model.Port); p.ID != id(5) || p.PeerID != uuid.Nil || p.Revision != rev || !up.Last {
		t.Errorf("the peer does not follow: %+v of %+v", up, p)
	}
	for _, e := range []store.Event{del, lan, br, up} {
		if e.Revision != rev {
			t.Errorf("revision %d in a transaction at %d", e.Revision, rev)
		}
	}
}

func testWatchEnds(t *testing.T, c Cluster) {
	s := c.Open(t)
	byContext, byClose := follow(t, s), follow(t, s)
	byContext.cancel()
	for range byContext.ch { // what was under way may still come
	}
	mustTxn(t, s, create(bridge(1, ""))...)
	if e := byClose.next(t); e.Object.GetMeta().ID != id(1) {
		t.Errorf("the other watch gets %+v", e)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range byClose.ch {
	}
}
