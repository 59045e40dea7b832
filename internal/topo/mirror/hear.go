package mirror

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// hear takes an event of the feed, and marks in d what it concerns. The feed may lose events, repeat them, or tell them in another order: what
// is not the next change of its bundle is either known already, or says that something is missing, and the bundle is wanted once more.
func (m *Mirror) hear(d dirty, e store.BundleEvent) {
	p := m.part
	if e.Mark {
		p.marked = false
		p.upTo = max(p.upTo, e.Revision)
		return
	}
	x := p.bundles[e.Bundle]
	if x == nil {
		return // not any more
	}
	p.newest = max(p.newest, e.Revision)
	switch {
	case e.Whole && (!x.fresh || e.Revision >= x.revision):
		m.bring(d, x, e)
		x.loaded, x.fresh, x.doubt = true, e.Revision >= x.late, nil
		if x.late = 0; !x.fresh {
			p.asked = append(p.asked, e.Bundle)
		}
	case e.Whole: // an old one
	case !x.fresh:
		x.late = max(x.late, e.Revision)
	case e.Revision <= x.revision: // once more, or later than one that came after it
	case e.Over, e.Seq == x.seq+1:
		m.bring(d, x, e)
	default:
		m.gaps.Add(1)
		m.Log.Warn("the store's stream has left out a change: a part of the network is read anew", "bundle", e.Bundle.Kind, "id", e.Bundle.ID, "change", e.Seq, "known", x.seq)
		x.fresh, x.late = false, e.Revision
		p.asked = append(p.asked, e.Bundle)
	}
	if slices.Contains(m.roots(), e.Bundle) {
		p.repin = true
	}
}

// bring brings a bundle to what an event says.
func (m *Mirror) bring(d dirty, x *bundle, e store.BundleEvent) {
	gone := e.Gone
	if e.Whole || e.Over {
		stays := make(map[model.Key]bool, len(e.Objects))
		for _, o := range e.Objects {
			stays[model.KeyOf(o)] = true
		}
		gone = slices.SortedFunc(maps.Keys(x.held), model.CompareKeys)
		gone = slices.DeleteFunc(gone, func(k model.Key) bool { return stays[k] })
	}
	for _, o := range e.Objects {
		m.hold(d, x, o)
	}
	for _, k := range gone {
		m.unhold(d, x, k)
	}
	x.seq, x.revision = e.Seq, e.Revision
}

// hold puts an object of a bundle into the graph, unless another bundle has brought a later state of it.
func (m *Mirror) hold(d dirty, x *bundle, o model.Object) {
	p, k := m.part, model.KeyOf(o)
	at := p.objects[k]
	if at == nil {
		at = &object{}
		p.objects[k] = at
	}
	rev := o.GetMeta().Revision
	if _, have := x.held[k]; !have {
		at.holders++
	}
	if x.held == nil {
		x.held = make(map[model.Key]int64)
	}
	x.held[k] = rev
	have := m.graph.Get(k.Kind, k.ID)
	if have != nil && rev < at.at {
		return
	}
	at.at = rev
	if have != nil { // being in another bundle is no news
		o.GetMeta().Revision = have.GetMeta().Revision
		same := reflect.DeepEqual(have, o)
		if o.GetMeta().Revision = rev; same {
			return
		}
	}
	m.put(d, o)
}

func (m *Mirror) unhold(d dirty, x *bundle, k model.Key) {
	at := m.part.objects[k]
	if _, have := x.held[k]; !have || at == nil {
		return
	}
	delete(x.held, k)
	if at.holders--; at.holders == 0 {
		delete(m.part.objects, k)
		m.remove(d, k)
	}
}

// empty forgets what a bundle holds.
func (m *Mirror) empty(d dirty, x *bundle) {
	for _, k := range slices.SortedFunc(maps.Keys(x.held), model.CompareKeys) {
		m.unhold(d, x, k)
	}
}

// attach begins with a new feed: what is held stays until it tells otherwise. It may be of a store that has been set back: revisions begin anew.
func (m *Mirror) attach(f store.Feed) {
	p := m.part
	p.feed, p.newest, p.upTo, p.marked = f, 0, 0, false
	d := newDirty()
	for _, b := range m.held() {
		x := p.bundles[b]
		if x.users == 0 {
			m.empty(d, x)
			delete(p.bundles, b)
			continue
		}
		x.fresh, x.seq, x.revision, x.late, x.doubt = false, 0, 0, 0, nil
	}
	for _, o := range p.objects {
		o.at = 0
	}
	p.unused, p.behind = nil, 0
	p.ready.with(m.settle(d))
	f.Want(m.held()...)
	m.update(newDirty())
}

// detach is called when the feed has broken.
func (m *Mirror) detach() {
	m.part.feed = nil
	m.following.Store(false)
}

// held lists the bundles in order.
func (m *Mirror) held() []model.Bundle {
	return slices.SortedFunc(maps.Keys(m.part.bundles), model.CompareBundles)
}

// update shows what has changed, unless something has to be shown with it that is still to come, and finds out how far the mirror is.
func (m *Mirror) update(d dirty) {
	p := m.part
	out := m.settle(d)
	p.ready.with(out)
	first := len(p.waiting) == 0 && !slices.ContainsFunc(m.roots(), func(b model.Bundle) bool { return !p.loaded(b) })
	revision := m.Snapshot().Revision
	stale := m.stale()
	if p.upTo != 0 && !stale {
		revision = p.upTo
	}
	switch {
	case p.feed == nil: // what the store has told of is not whole; this is news of something else
		m.show(out, revision)
	case !m.holdsBack(stale):
		out, p.ready = p.ready, newDirty()
		m.show(out, revision)
	}
	m.objects.Store(int64(len(p.objects)))
	m.bundles.Store(int64(len(p.bundles)))
	if first {
		m.announce()
	}
	if p.feed == nil {
		return
	}
	if !stale && !m.following.Swap(true) {
		m.kept, p.since = nil, m.Clock.Now()
		m.resyncs.Add(1)
	}
	if !p.marked && p.upTo < p.newest {
		p.marked = true
		p.markSoon()
	}
}

// show publishes things that are settled.
func (m *Mirror) show(d dirty, revision int64) {
	things := d.things()
	for _, t := range things {
		if w := m.part.things[t]; w != nil {
			if w.known = true; m.asks.known(t) {
				w.used = m.Clock.Now()
			}
		}
	}
	if len(d.hosts) > 0 || len(things) > 0 {
		m.changes.Add(1)
	}
	m.publish(d, revision)
}

// maxBehind is for how long at most nothing is shown because something else is still to come: what the store does not answer for longer
// breaks the feed anyway.
const maxBehind = 5 * time.Second

// holdsBack reports whether what has changed is not to be shown yet: something that is shown is known to be older.
func (m *Mirror) holdsBack(stale bool) bool {
	p, now := m.part, m.Clock.Now()
	switch {
	case !stale:
		p.behind = 0
	case p.behind == 0:
		p.behind = now
	}
	select {
	case <-m.synced:
		return stale && now < p.behind+int64(maxBehind)
	default:
		return false // nobody decides by it yet
	}
}

// overdue reports whether what is held back has been so for long enough.
func (p *part) overdue(now int64) bool {
	return p.feed != nil && p.behind != 0 && p.behind+int64(maxBehind) <= now && (len(p.ready.hosts) > 0 || len(p.ready.things()) > 0)
}

// markWithin is how soon a mark is asked for after a change that nobody waits to be told of (see Hurry): it costs the store as much as the change does, and one is
// enough for all changes of that time. At random, as hosts hear of a change at the same time.
const markWithin = time.Second

// markSoon asks how far the feed is. Until it has said so once, nothing is known of it.
func (p *part) markSoon() {
	if p.soon == nil || p.upTo == 0 {
		p.feed.Mark()
		return
	}
	p.soon.Reset(markWithin/2 + rand.N(markWithin/2))
}

// stale reports whether something in the snapshot is known not to be up to date, or may not be.
func (m *Mirror) stale() bool {
	p := m.part
	for _, b := range m.roots() {
		if !p.bundles[b].fresh {
			return true
		}
	}
	for _, x := range p.bundles {
		if x.loaded && !x.fresh {
			return true
		}
	}
	for t := range p.waiting {
		if p.things[t].known {
			return true
		}
	}
	return false
}
