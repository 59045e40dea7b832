package mirror

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// maxAsked bounds how many things that one port has asked for are under way.
const maxAsked = 1024

// asks are things that workers ask for.
type asks struct {
	wake chan struct{} // holds one

	mu   sync.Mutex
	news []view.Thing             // guarded by mu
	by   map[view.Thing]uuid.UUID // the port that asks for what is under way; guarded by mu
	n    map[uuid.UUID]int        // of each port; guarded by mu
}

// Load has things brought into the snapshot that a packet of a port needs, or has it known that they do not exist: then their tags are told
// (view.Thing.Tag). It does not wait. False: the port has asked for too much that has not come. Safe for concurrent use.
func (m *Mirror) Load(port uuid.UUID, what []view.Thing) bool {
	a := &m.asks
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n[port]+len(what) > maxAsked {
		return false
	}
	for _, t := range what {
		if _, ok := a.by[t]; !ok {
			a.by[t] = port
			a.n[port]++
			a.news = append(a.news, t)
		}
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return true
}

// known ends what was under way, and reports whether it was.
func (a *asks) known(t view.Thing) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	port, ok := a.by[t]
	if !ok {
		return false
	}
	delete(a.by, t)
	if a.n[port]--; a.n[port] == 0 {
		delete(a.n, port)
	}
	return true
}

// loadAsked wants what has been asked for.
func (m *Mirror) loadAsked() {
	a := &m.asks
	a.mu.Lock()
	news := a.news
	a.news = nil
	a.mu.Unlock()
	now := m.Clock.Now()
	for _, t := range news {
		m.part.want(t, now)
		if m.part.things[t].known { // it has been told already
			a.known(t)
		}
	}
	m.update(newDirty())
}

// sweep lets go of things that nobody has needed for m.Idle and no flow depends on. While the store is not followed nothing could be had again; and when
// it is again, it may soon be away once more: then, too, everything stays for that long.
func (m *Mirror) sweep() {
	p, now := m.part, m.Clock.Now()
	if !m.following.Load() || p.since+int64(m.Idle) > now || p.behind != 0 {
		return
	}
	if len(p.objects) < 2*m.Reach {
		for t := range m.around() {
			if w := p.things[t]; w != nil {
				w.used = now
			}
		}
	}
	var old []view.Thing
	for t, w := range p.things {
		if _, pinned := p.pinned[t]; !pinned && w.used+int64(m.Idle) <= now {
			old = append(old, t)
		}
	}
	if len(old) == 0 {
		return
	}
	slices.SortFunc(old, compareThings)
	goes := make(map[view.Thing]bool, len(old))
	for _, t := range old {
		goes[t] = true
	}
	if m.InUse != nil {
		for _, t := range m.InUse(slices.Clone(old)) {
			goes[t] = false
			p.things[t].used = now
		}
	}
	for t := range p.things { // what is read together stays together
		if !goes[t] {
			_, along := m.builder().needs(t)
			for _, a := range along {
				goes[a] = false
			}
		}
	}
	d := newDirty()
	for _, t := range old {
		if goes[t] {
			p.need(p.things[t], nil)
			delete(p.things, t)
			delete(p.waiting, t)
			m.asks.known(t)
			d.thing(t)
		}
	}
	d.with(m.settle(newDirty()))
	m.show(d, m.Snapshot().Revision)
	m.objects.Store(int64(len(p.objects)))
	m.bundles.Store(int64(len(p.bundles)))
}

// DefaultReach is how many objects a mirror may hold before it waits to be asked. What is around a host's ports is likely to be asked for, and without the
// store it cannot be had: a small cloud is held whole.
const DefaultReach = 1000

// reach wants what is next to this host's ports, while everything that is wanted is there and that is little.
func (m *Mirror) reach(now int64) (more bool) {
	p := m.part
	select {
	case <-m.synced:
	default:
		return false // what is asked for goes first
	}
	if p.feed == nil || len(p.waiting) > 0 || len(p.objects) >= m.Reach || len(p.pinned) == 0 {
		return false
	}
	for t := range m.around() {
		if p.things[t] == nil {
			p.want(t, now)
			more = true
		}
	}
	return more
}

// around are this host's ports, and all that is linked with them, as far as it is held.
func (m *Mirror) around() map[view.Thing]struct{} {
	seen := make(map[view.Thing]struct{})
	var queue []view.Thing
	add := func(t view.Thing) {
		if _, ok := seen[t]; !ok && t.ID != uuid.Nil {
			seen[t] = struct{}{}
			queue = append(queue, t)
		}
	}
	for t := range m.part.pinned {
		add(t)
	}
	for len(queue) > 0 {
		t := queue[0]
		queue = queue[1:]
		switch t.Kind {
		case view.ThingPort:
			if p, ok := get[*model.Port](m.graph, t.ID); ok {
				add(deviceOf(p))
				add(view.Thing{Kind: view.ThingPort, ID: p.PeerID})
			}
		case view.ThingBridge, view.ThingRouter:
			for o := range m.graph.ReferrersOf(model.Key{Kind: model.Kind(t.Kind.String()), ID: t.ID}, model.KindPort) {
				add(view.Thing{Kind: view.ThingPort, ID: o.GetMeta().ID})
			}
		}
	}
	return seen
}

// DefaultIdle is for how long nobody has to need a thing before it is let go.
const DefaultIdle = 10 * time.Minute
