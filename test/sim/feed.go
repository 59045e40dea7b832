package sim

import (
	"context"
	"slices"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// feed implements store.Feed.
type feed struct {
	*watch[store.BundleEvent]
	wanted map[model.Bundle]bool
}

// Feed implements store.Bundles.
func (c *client) Feed(context.Context) (store.Feed, error) {
	if err := c.reachable(); err != nil {
		return nil, err
	}
	f := &feed{newWatch[store.BundleEvent](c), make(map[model.Bundle]bool)}
	c.feeds = append(c.feeds, f)
	return f, nil
}

// Digests implements store.Bundles.
func (c *client) Digests(_ context.Context, bs ...model.Bundle) ([]store.Digest, error) {
	if err := c.reachable(); err != nil {
		return nil, err
	}
	ds := make([]store.Digest, len(bs))
	for i, b := range bs {
		ds[i] = c.srv.parts.Digest(b)
	}
	return ds, nil
}

// Want implements store.Feed.
func (f *feed) Want(bs ...model.Bundle) {
	for _, b := range bs {
		f.wanted[b] = true
		f.push(f.c.srv.parts.Whole(f.c.srv.graph, b, f.c.srv.revision))
	}
}

// Leave implements store.Feed.
func (f *feed) Leave(bs ...model.Bundle) {
	for _, b := range bs {
		delete(f.wanted, b)
	}
}

// Mark implements store.Feed.
func (f *feed) Mark() { f.push(store.BundleEvent{Mark: true, Revision: f.c.srv.revision}) }

// Events implements store.Feed.
func (f *feed) Events() <-chan store.BundleEvent { return f.ch }

// tell passes on what is wanted, as straight as the client's faults let it.
func (f *feed) tell(es []store.BundleEvent) {
	c, rnd := f.c, f.c.srv.s.rnd
	for _, e := range es {
		if !f.wanted[e.Bundle] {
			continue
		}
		switch {
		case c.lossy && chance(rnd, 4):
			if c.doubt == 0 {
				c.doubt = e.Revision - 1
			}
			c.srv.s.logf("%s: is not told of revision %d of %s %v", c.name, e.Revision, e.Bundle.Kind, e.Bundle.ID)
			continue
		case c.crooked && chance(rnd, 4):
			f.push(mem.Own(e))
		case c.crooked && chance(rnd, 3) && f.overtake(mem.Own(e)):
			continue
		}
		f.push(mem.Own(e))
	}
}

// overtake has an event go before the change that was told last, if that is under way.
func (f *feed) overtake(e store.BundleEvent) bool {
	i := len(f.queue) - 1
	if i < 0 || f.queue[i].Mark || f.queue[i].Whole {
		return false
	}
	f.push(f.queue[i])
	f.queue = slices.Insert(f.queue[:i], i, e, f.queue[len(f.queue)-1])
	return true
}
