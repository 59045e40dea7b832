package mirror

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// How often a mirror of a part asks how far it is, when nothing else makes it ask, and looks for what it need not hold any more.
const (
	markEvery  = 10 * time.Second
	sweepEvery = time.Minute
)

// RunPart follows the parts of a store that are needed until ctx ends, whose error it returns. When the feed breaks, the last snapshot stays,
// and what has changed meanwhile comes when the store is back. Call it once, of a mirror that NewPart has made.
func (m *Mirror) RunPart(ctx context.Context, s store.Bundles) error {
	m.wantKept()
	return m.run(ctx, func(ctx context.Context) (bool, error) { return m.followPart(ctx, s) })
}

// followPart reads one feed to its end.
func (m *Mirror) followPart(ctx context.Context, s store.Bundles) (synced bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := begin(ctx, m, s.Feed)
	if err != nil {
		return false, err
	}
	soon := time.NewTimer(markWithin)
	soon.Stop()
	defer soon.Stop()
	m.part.soon = soon
	m.attach(f)
	defer m.detach()
	mark, sweep, late := time.NewTicker(markEvery), time.NewTicker(min(sweepEvery, max(m.Idle/4, time.Millisecond))), time.NewTicker(maxBehind/4)
	defer mark.Stop()
	defer sweep.Stop()
	defer late.Stop()
	compare := time.NewTimer(rand.N(m.Compare))
	defer compare.Stop()
	for {
		select {
		case found := <-m.news:
			m.updateNews(m.checked(found))
		case h := <-m.hostNews:
			m.takeHosts(h)
		case o := <-m.owners:
			m.updateNews(m.owned(o))
		case fn := <-m.calls:
			fn()
		case <-m.patience:
			if !m.following.Load() {
				m.useKept()
			}
		case <-m.asks.wake:
			m.loadAsked()
		case <-mark.C:
			f.Mark()
		case <-soon.C:
			f.Mark()
		case <-m.hurry:
			f.Mark()
		case <-sweep.C:
			m.sweep()
		case <-late.C:
			if m.part.overdue(m.Clock.Now()) {
				m.update(newDirty())
			}
		case <-compare.C:
			go m.compareOnce(ctx, s, compare)
		case e, ok := <-f.Events():
			if !ok {
				return m.following.Load(), errBroken
			}
			m.hearAll(e, f.Events())
		}
	}
}

// maxTogether is how many events are taken together at most.
const maxTogether = 256

// hearAll takes an event, and those that are there already.
func (m *Mirror) hearAll(e store.BundleEvent, more <-chan store.BundleEvent) {
	d := newDirty()
	m.hear(d, e)
	for range maxTogether {
		select {
		case e, ok := <-more:
			if ok {
				m.hear(d, e)
				continue
			}
		default:
		}
		break
	}
	m.update(d)
}

// updateNews publishes what follows from news that are not the network's, while the store may be away.
func (m *Mirror) updateNews(d dirty) {
	if m.part == nil {
		m.publish(d, m.Snapshot().Revision)
		return
	}
	m.part.repin = true
	m.update(d)
}

// PartSteps is Steps for a mirror of a part.
type PartSteps struct {
	m    *Mirror
	s    store.Bundles
	feed store.Feed // nil: nothing is followed
}

// PartSteps begins. It takes the place of RunPart.
func (m *Mirror) PartSteps(s store.Bundles) *PartSteps {
	m.wantKept()
	return &PartSteps{m: m, s: s}
}

// Step does one thing that is to be done, as Steps.Step does.
func (x *PartSteps) Step(ctx context.Context) (did bool, err error) {
	m := x.m
	select {
	case o := <-m.owners: // while the store is away, too
		m.updateNews(m.owned(o))
		return true, nil
	default:
	}
	if x.feed == nil {
		if x.feed, err = x.s.Feed(ctx); err != nil {
			x.feed = nil
			m.useKept()
			return false, err
		}
		m.attach(x.feed)
		return true, nil
	}
	select {
	case found := <-m.news:
		m.updateNews(m.checked(found))
		return true, nil
	default:
	}
	select {
	case h := <-m.hostNews:
		m.takeHosts(h)
		return true, nil
	default:
	}
	select {
	case <-m.asks.wake:
		m.loadAsked()
		return true, nil
	default:
	}
	select {
	case e, ok := <-x.feed.Events():
		if !ok {
			x.feed = nil
			m.detach()
			return false, errBroken
		}
		m.hearAll(e, x.feed.Events())
		return true, nil
	default:
	}
	if m.part.overdue(m.Clock.Now()) {
		m.update(newDirty())
		return true, nil
	}
	return false, nil
}

// Keep is what the mirror holds, as Mirror.Keep says.
func (x *PartSteps) Keep() Kept { return x.m.keep() }

// Tend does what is due at intervals: Sweep lets go of what is not needed, and asks how far the mirror is.
func (x *PartSteps) Tend(context.Context) error {
	if x.feed != nil {
		x.feed.Mark()
		x.m.sweep()
	}
	return nil
}

// Compare compares what is held with the store, once.
func (x *PartSteps) Compare(ctx context.Context) error {
	if x.feed == nil {
		return nil
	}
	bs := x.m.held()
	ds, err := x.s.Digests(ctx, bs...)
	if err == nil {
		x.m.compare(bs, ds)
	}
	return err
}
