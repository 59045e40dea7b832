package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// testIncrements counts in the name of one object: a lost update would be missing from the sum.
func testIncrements(t *testing.T, c Cluster) {
	const writers, each = 4, 5
	s := c.Open(t)
	mustTxn(t, s, create(bridge(1, "0"))...)
	ctx := withPatience(t)
	var wg sync.WaitGroup
	for i := range writers {
		cl := s
		if i%2 == 1 {
			cl = c.Open(t)
		}
		wg.Go(func() {
			for range each {
				if err := increment(ctx, cl); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	o, err := s.Get(ctx, model.KindBridge, id(1))
	if err != nil || o.GetMeta().Name != strconv.Itoa(writers*each) {
		t.Errorf("after %d increments: %v, %v", writers*each, o, err)
	}
}

func increment(ctx context.Context, s store.Store) error {
	for {
		o, err := s.Get(ctx, model.KindBridge, id(1))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(o.GetMeta().Name)
		if err != nil {
			return err
		}
		o.GetMeta().Name = strconv.Itoa(n + 1)
		_, err = s.Txn(ctx, store.Op{Verb: store.Replace, Object: o, IfRevision: o.GetMeta().Revision})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// testRaces lets two clients compete for names and pull bridges from under ports, and checks
// that the outcome is whole and that all watches tell the same story.
func testRaces(t *testing.T, c Cluster) {
	const rounds = 10
	a, b := c.Open(t), c.Open(t)
	wa, wb := follow(t, a), follow(t, b)
	ctx := withPatience(t)
	for n := range byte(rounds) {
		base := 1 + 10*n
		name := fmt.Sprintf("contested-%d", n)
		mustTxn(t, a, create(bridge(base, ""))...)
		var wg sync.WaitGroup
		var won [2]error
		for i, s := range []store.Store{a, b} {
			wg.Go(func() {
				_, won[i] = s.Txn(ctx, create(bridge(base+1+byte(i), name))...)
			})
		}
		var made, gone error
		wg.Go(func() {
			_, made = a.Txn(ctx, create(&model.Port{Meta: model.Meta{ID: id(base + 5)}, BridgeID: id(base)})...)
		})
		wg.Go(func() {
			_, gone = b.Txn(ctx, store.Op{Verb: store.Delete, Object: bridge(base, "")})
		})
		wg.Wait()
		if (won[0] == nil) == (won[1] == nil) || !errors.Is(errors.Join(won[:]...), store.ErrExists) {
			t.Errorf("round %d: a name given to %v", n, won)
		}
		if (made == nil) == (gone == nil) || !(errors.Is(made, store.ErrInvalid) || errors.Is(gone, store.ErrReferenced)) {
			t.Errorf("round %d: port created %v, bridge deleted %v", n, made, gone)
		}
	}
	end := mustTxn(t, a, create(bridge(250, "end"))...)
	ea, eb := readUntil(t, wa, end), readUntil(t, wb, end)
	if d := diff(ea, eb); d != "" {
		t.Errorf("two watches differ:\n%s", d)
	}
	replay := make(map[model.Key]model.Object)
	for i, e := range ea {
		if i > 0 && e.Revision <= ea[i-1].Revision {
			t.Errorf("revision %d after %d", e.Revision, ea[i-1].Revision)
		}
		if e.Deleted {
			delete(replay, model.KeyOf(e.Object))
		} else {
			replay[model.KeyOf(e.Object)] = e.Object
		}
	}
	if d := diff(state(t, b), replay); d != "" {
		t.Errorf("the events do not add up to the state (-want +got):\n%s", d)
	}
}

func readUntil(t *testing.T, w *stream, rev int64) []store.Event {
	t.Helper()
	var es []store.Event
	for {
		e := w.next(t)
		es = append(es, e)
		if e.Revision == rev && e.Last {
			return es
		}
	}
}

// testCutAndHeal follows the store across an outage, watching anew whenever the stream breaks.
func testCutAndHeal(t *testing.T, c Cluster) {
	s, watcher := c.Open(t), c.Open(t)
	mustTxn(t, s, create(bridge(1, "before"), bridge(2, "deleted later"))...)
	ch, err := watcher.Watch(withPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Cut(t)
	brief, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := s.Txn(brief, create(bridge(3, "during"))...); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while cut: %v", err)
	}
	if _, _, err := s.List(brief, model.KindBridge); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while cut: %v", err)
	}
	c.Heal(t)
	for { // the first tries may still find a broken connection
		_, err := s.Txn(withPatience(t), store.Op{Verb: store.Delete, Object: bridge(2, "")}, store.Op{Verb: store.Create, Object: bridge(4, "after")})
		if err == nil || errors.Is(err, store.ErrNotFound) { // an earlier try did it after all
			break
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	want := state(t, s)
	got := make(map[model.Key]model.Object)
	for !maps.EqualFunc(got, want, func(a, b model.Object) bool { return a.GetMeta().Revision == b.GetMeta().Revision }) {
		e, ok := <-ch
		switch {
		case !ok:
			clear(got)
			if ch, err = watcher.Watch(withPatience(t)); err != nil {
				t.Fatal(err)
			}
		case e.Deleted:
			delete(got, model.KeyOf(e.Object))
		case !e.Synced:
			got[model.KeyOf(e.Object)] = e.Object
		}
	}
	if d := diff(want, got); d != "" {
		t.Error(d)
	}
}
