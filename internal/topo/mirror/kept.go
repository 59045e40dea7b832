package mirror

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Kept is what an earlier mirror has held.
type Kept struct {
	Revision int64
	Objects  []model.Object
	Part     *KeptPart   // nil: it has held the whole network
	Dead     []uuid.UUID // hosts that were known to be, in order
}

// KeptPart says which part of the network was held.
type KeptPart struct {
	Bundles []model.Bundle // of which Objects are all that they hold
	Things  []view.Thing   // that were needed
}

// Restore gives the mirror what an earlier one has held. It counts when the store does not answer within patience; what has changed since
// then is told when it does. Hosts that were dead are so, whoever answers, until SetHosts says otherwise. Call it before Run; the mirror takes the objects over.
func (m *Mirror) Restore(k Kept, patience time.Duration) {
	m.live = live.Kept(k.Dead...)
	m.kept, m.patience = &k, time.After(patience)
}

// Keep is what the mirror holds, or held when Run ended. It waits for Run to begin, or for ctx. The objects belong to the mirror and never change.
// Safe for concurrent use.
func (m *Mirror) Keep(ctx context.Context) (k Kept, err error) {
	done := make(chan struct{})
	read := func() {
		defer close(done)
		k = m.keep()
	}
	select {
	case m.calls <- read:
		<-done
		return k, nil
	case <-m.ended:
		read()
		return k, nil
	case <-ctx.Done():
		return k, ctx.Err()
	}
}

func (m *Mirror) keep() Kept {
	k := Kept{Revision: m.Snapshot().Revision, Part: m.keptPart(), Dead: m.dead()}
	for _, kind := range model.Kinds {
		for o := range m.graph.All(kind) {
			k.Objects = append(k.Objects, o)
		}
	}
	return k
}

// useKept publishes what was kept, once.
func (m *Mirror) useKept() {
	k := m.kept
	if k == nil {
		return
	}
	m.kept = nil
	if m.part != nil {
		m.update(m.restore(k))
	} else {
		events := make([]store.Event, len(k.Objects))
		for i, o := range k.Objects {
			events[i] = store.Event{Revision: k.Revision, Object: o}
		}
		m.publish(m.reset(events), k.Revision)
	}
	m.restored.Store(true)
	m.announce()
	m.Log.Warn("the store does not answer: the network is the one that was kept", "revision", k.Revision, "objects", len(k.Objects))
}

// begin begins a stream without waiting idly for a store that is away.
func begin[T any](ctx context.Context, m *Mirror, open func(context.Context) (T, error)) (T, error) {
	type answer struct {
		stream T
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		stream, err := open(ctx)
		answers <- answer{stream, err}
	}()
	for {
		select {
		case a := <-answers:
			if a.err != nil {
				m.useKept()
			}
			return a.stream, a.err
		case <-m.patience:
			m.useKept()
		case <-m.asks.wake:
			m.loadAsked()
		case fn := <-m.calls:
			fn()
		case o := <-m.owners:
			m.updateNews(m.owned(o))
		}
	}
}

// wantKept has held from the beginning what an earlier mirror has held: flows that it has left depend on it.
func (m *Mirror) wantKept() {
	if m.kept == nil || m.kept.Part == nil {
		return
	}
	for _, t := range m.kept.Part.Things {
		m.part.want(t, m.Clock.Now())
	}
}

// dead are the hosts that are, in order.
func (m *Mirror) dead() (ids []uuid.UUID) {
	b := m.builder()
	for o := range m.graph.All(model.KindHost) {
		if id := o.GetMeta().ID; b.dead(id) {
			ids = append(ids, id)
		}
	}
	sortIDs(ids)
	return ids
}

// keptPart is nil of a mirror of the whole.
func (m *Mirror) keptPart() *KeptPart {
	if m.part == nil {
		return nil
	}
	k := &KeptPart{}
	for _, b := range m.held() {
		if m.part.bundles[b].loaded {
			k.Bundles = append(k.Bundles, b)
		}
	}
	k.Things = slices.SortedFunc(maps.Keys(m.part.things), compareThings)
	return k
}

// restore takes over what was kept, whatever has been heard until now. What was the whole network is all bundles of it.
func (m *Mirror) restore(k *Kept) dirty {
	p, d := m.part, newDirty()
	g := model.NewReplica()
	for _, o := range k.Objects {
		g.Load(o)
	}
	list := m.roots()
	if k.Part != nil {
		list = k.Part.Bundles
	}
	for _, b := range list {
		if x := p.bundles[b]; x == nil {
			p.bundles[b] = &bundle{loaded: true}
		} else {
			x.loaded = true
		}
	}
	for _, o := range k.Objects {
		for _, b := range g.Bundles(o) {
			x := p.bundles[b]
			if x == nil && k.Part == nil {
				x = &bundle{loaded: true}
				p.bundles[b] = x
			}
			if x != nil && !x.fresh {
				m.hold(d, x, o)
			}
		}
	}
	p.repin = true
	return d
}

// pause waits for d, and goes on to serve.
func (m *Mirror) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-m.patience:
			m.useKept()
		case fn := <-m.calls:
			fn()
		case <-m.asks.wake:
			m.loadAsked()
		case found := <-m.news:
			m.updateNews(m.checked(found))
		case h := <-m.hostNews:
			m.takeHosts(h)
		case o := <-m.owners:
			m.updateNews(m.owned(o))
		}
	}
}
