package mirror

import (
	"context"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Whatever a stream leaves out is found in the end by comparing digests of all bundles with the store's. A difference may be a change that is on its
// way: only a bundle that is the same the next time, and differs still, is read anew.

// DefaultCompare is how often that is done; after a difference doubtEvery later.
const (
	DefaultCompare = 5 * time.Minute
	doubtEvery     = 5 * time.Second
)

// compareOnce does so without keeping the goroutine of Run waiting for the store, and sets next for the next time.
func (m *Mirror) compareOnce(ctx context.Context, s store.Bundles, next *time.Timer) {
	ask := func(fn func()) bool {
		select {
		case m.calls <- fn:
			return true
		case <-ctx.Done():
			return false
		}
	}
	bundles := make(chan []model.Bundle, 1)
	if !ask(func() { bundles <- m.held() }) {
		return
	}
	bs := <-bundles
	ds, err := s.Digests(ctx, bs...)
	if err != nil && ctx.Err() == nil {
		m.Log.Warn("what is held of the network cannot be compared with the store", "error", err)
	}
	ask(func() {
		wait := m.Compare
		if err == nil && m.compare(bs, ds) {
			wait = min(wait, doubtEvery)
		}
		next.Reset(wait)
	})
}

// compare holds digests of the store against what is held, and wants anew what differs for the second time. doubts: something differs
// for the first time.
func (m *Mirror) compare(bs []model.Bundle, ds []store.Digest) (doubts bool) {
	p := m.part
	for i, b := range bs {
		x := p.bundles[b]
		if x == nil {
			continue
		}
		have := store.Digest{Seq: x.seq}
		for _, rev := range x.held {
			have.Add(rev)
		}
		if !x.fresh {
			have.Seq = -1 // its whole is to come, and may have been lost
		}
		switch {
		case have == ds[i]:
			x.doubt = nil
		case x.doubt == nil || *x.doubt != have:
			x.doubt, doubts = &have, true
		default:
			x.doubt, x.fresh = nil, false
			m.mended.Add(1)
			m.Log.Warn("a part of the network differs from the store, and is read anew", "bundle", b.Kind, "id", b.ID,
				"changes", have.Seq, "objects", have.N, "stored_changes", ds[i].Seq, "stored_objects", ds[i].N)
			p.asked = append(p.asked, b)
		}
	}
	m.update(newDirty())
	return doubts
}
