package mirror

import (
	"context"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Kept is what an earlier mirror has held.
type Kept struct {
	Revision int64
	Objects  []model.Object
}

// Restore gives the mirror what an earlier one has held. It counts when the store does not answer within patience; what has changed since
// then is told when it does. Call it before Run; the mirror takes the objects over.
func (m *Mirror) Restore(k Kept, patience time.Duration) {
	m.kept, m.patience = &k, time.After(patience)
}

// Keep is what the mirror holds, or held when Run ended. It waits for Run to begin, or for ctx. The objects belong to the mirror and never change.
// Safe for concurrent use.
func (m *Mirror) Keep(ctx context.Context) (k Kept, err error) {
	done := make(chan struct{})
	read := func() {
		defer close(done)
		k.Revision = m.Snapshot().Revision
		for _, kind := range model.Kinds {
			for o := range m.graph.All(kind) {
				k.Objects = append(k.Objects, o)
			}
		}
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

// useKept publishes what was kept, once.
func (m *Mirror) useKept() {
	k := m.kept
	if k == nil {
		return
	}
	m.kept = nil
	events := make([]store.Event, len(k.Objects))
	for i, o := range k.Objects {
		events[i] = store.Event{Revision: k.Revision, Object: o}
	}
	m.publish(m.reset(events), k.Revision)
	m.restored.Store(true)
	m.announce()
	m.Log.Warn("the store does not answer: the network is the one that was kept", "revision", k.Revision, "objects", len(events))
}

// watch begins a stream without waiting idly for a store that is away.
func (m *Mirror) watch(ctx context.Context, s store.Store) (<-chan store.Event, error) {
	type answer struct {
		ch  <-chan store.Event
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		ch, err := s.Watch(ctx)
		answers <- answer{ch, err}
	}()
	for {
		select {
		case a := <-answers:
			if a.err != nil {
				m.useKept()
			}
			return a.ch, a.err
		case <-m.patience:
			m.useKept()
		case fn := <-m.calls:
			fn()
		}
	}
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
		case found := <-m.news:
			m.publish(m.checked(found), m.Snapshot().Revision)
		}
	}
}
