package access

import (
	"context"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Watch implements store.Store. What ceases to be visible is deleted, for whom it did.
func (g *Guarded) Watch(ctx context.Context) (<-chan store.Event, error) {
	in, err := g.under.Watch(ctx)
	p := Of(ctx)
	if err != nil || p.Tenant == "" && p.Role != "" {
		return in, err
	}
	out := make(chan store.Event)
	go func() {
		defer close(out)
		f := filter{who: p, shown: make(map[model.Key]bool)}
		for ev := range in {
			for _, ev := range f.pass(ev) {
				select {
				case out <- ev:
				case <-ctx.Done(): // in is drained until the store ends it
				}
			}
		}
	}()
	return out, nil
}

// filter lets through what one principal may know of a stream. After the initial state it holds back a transaction until it
// is whole, to mark the last event of those that are left.
type filter struct {
	who    Principal
	synced bool
	shown  map[model.Key]bool // what the principal believes to exist
	txn    []store.Event
}

func (f *filter) pass(ev store.Event) []store.Event {
	last := ev.Last
	switch {
	case ev.Synced:
		f.synced = true
		return []store.Event{ev}
	case f.visible(&ev):
		if !f.synced {
			return []store.Event{ev}
		}
		f.txn = append(f.txn, ev)
	}
	if !last || len(f.txn) == 0 {
		return nil
	}
	whole := f.txn
	f.txn = nil
	for i := range whole {
		whole[i].Last = i == len(whole)-1
	}
	return whole
}

func (f *filter) visible(ev *store.Event) bool {
	key := model.KeyOf(ev.Object)
	sees := f.who.Sees(ev.Object) && !ev.Deleted
	known := f.shown[key]
	switch {
	case sees:
		f.shown[key] = true
		return true
	case !known:
		return false
	}
	delete(f.shown, key)
	if !ev.Deleted { // it is no longer shared: what it has become is not theirs to know
		ev.Deleted, ev.Object = true, model.New(key.Kind)
		ev.Object.GetMeta().ID = key.ID
	}
	return true
}
