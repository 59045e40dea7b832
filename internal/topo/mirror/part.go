package mirror

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// part is the part of the network that a mirror holds: things that ports of this host or their packets need, each with the bundles that it is
// built from. A thing is shown, or known not to exist, when all of these have been loaded. When it needs more than before, it
// stays as it was until that has been loaded, too: whatever happens to the store meanwhile, what worked works. And so does everything else, so that
// no packet is decided by a mixture of two networks, like none that there was; but not for longer than maxBehind.
//
// All of it belongs to the goroutine of Run.
type part struct {
	things  map[view.Thing]*wanted
	waiting map[view.Thing]struct{} // of things: not all that they need is there
	pinned  map[view.Thing]struct{} // of things: this host needs them at any time
	bundles map[model.Bundle]*bundle
	objects map[model.Key]*object
	repin   bool // what pinned follows from has changed

	ready  dirty // may be shown, but for what has to be shown with it
	behind int64 // since when something shown is not what the store has, by Mirror.Clock; 0: everything is

	feed   store.Feed     // nil: the store is away
	asked  []model.Bundle // to be wanted from it
	unused []model.Bundle // that nothing needed when they were noted here
	newest int64          // revision that the feed has told of
	upTo   int64          // revision up to which the feed has told everything
	marked bool           // a mark is on its way, or will be asked for soon
	soon   *time.Timer    // when it is; nil: it is asked for at once
	since  int64          // when the store was followed again, by Mirror.Clock
}

// wanted is a thing that is to be held.
type wanted struct {
	needs []model.Bundle // each once
	used  int64          // when it was needed, by Mirror.Clock
	known bool           // it is shown: in the snapshot, or known to be absent
}

// bundle is held because things need it.
type bundle struct {
	users  int
	loaded bool // held is what it was at some time
	fresh  bool // and is so still, as far as the present feed has told
	// Of the feed's last word.
	seq, revision int64
	late          int64               // revision of a change that has overtaken the whole
	held          map[model.Key]int64 // revisions, as digests have them
	doubt         *store.Digest       // what it was when it last differed from what the store has
}

// object is in the graph because bundles hold it.
type object struct {
	holders int
	at      int64 // the feed's revision of it
}

// roots are the bundles from which it follows what else is needed.
func (m *Mirror) roots() []model.Bundle {
	return []model.Bundle{{Kind: model.BundleBindings, ID: m.host}, model.AllHosts, model.AllBalancers}
}

// NewPart makes an empty mirror that is to hold a part of the network: what concerns the ports of host, and what Load asks for.
func NewPart(host uuid.UUID) *Mirror {
	m := New(host)
	m.part = &part{things: make(map[view.Thing]*wanted), waiting: make(map[view.Thing]struct{}), pinned: make(map[view.Thing]struct{}),
		bundles: make(map[model.Bundle]*bundle), objects: make(map[model.Key]*object), repin: true, ready: newDirty()}
	for _, b := range m.roots() {
		m.part.bundles[b] = &bundle{users: 1}
	}
	m.Snapshot().Partial = true
	return m
}

// has reports whether a thing may be shown; p may be nil, of a mirror of the whole.
func (p *part) has(k view.ThingKind, id uuid.UUID) bool {
	if p == nil {
		return true
	}
	w := p.things[view.Thing{Kind: k, ID: id}]
	return w != nil && w.known
}

// want has a thing held from now on.
func (p *part) want(t view.Thing, now int64) {
	w := p.things[t]
	if w == nil {
		w = &wanted{}
		p.things[t] = w
		p.waiting[t] = struct{}{}
	}
	w.used = now
}

// need notes what a thing is built from.
func (p *part) need(w *wanted, bs []model.Bundle) (whole bool) {
	whole = true
	for _, b := range bs {
		x := p.bundles[b]
		if x == nil {
			x = &bundle{}
			p.bundles[b] = x
			p.asked = append(p.asked, b)
		}
		x.users++
		whole = whole && x.loaded
	}
	for _, b := range w.needs {
		if x := p.bundles[b]; x != nil {
			if x.users--; x.users == 0 {
				p.unused = append(p.unused, b)
			}
		}
	}
	w.needs = bs
	return whole
}

func (p *part) loaded(b model.Bundle) bool {
	x := p.bundles[b]
	return x != nil && x.loaded
}

// settle finds out what the things in d need now, has the feed bring it, and returns what is to be built: of things all whose
// bundles are there.
func (m *Mirror) settle(d dirty) dirty {
	p, out := m.part, newDirty()
	now := m.Clock.Now()
	for again := true; again; again = m.dropUnused(d) || m.reach(now) {
		m.pin(now)
		todo := d.things()
		for t := range p.waiting {
			todo = append(todo, t)
		}
		slices.SortFunc(todo, compareThings)
		for i := 0; i < len(todo); i++ {
			t := todo[i]
			w := p.things[t]
			if w == nil {
				continue
			}
			bs, along := m.builder().needs(t)
			if !p.need(w, bs) {
				p.waiting[t] = struct{}{}
				p.ready.without(t)
				continue
			}
			delete(p.waiting, t)
			out.thing(t)
			for _, a := range along {
				if p.things[a] == nil {
					p.want(a, now)
					todo = append(todo, a)
				}
			}
		}
		for id := range d.hosts {
			out.hosts[id] = struct{}{}
		}
		d = newDirty()
	}
	if asked := slices.DeleteFunc(p.asked, func(b model.Bundle) bool { return p.bundles[b] == nil }); p.feed != nil && len(asked) > 0 {
		p.feed.Want(asked...)
	}
	p.asked = nil // another feed will be asked for all
	return out
}

// dropUnused lets go of bundles that nothing needs any more, and marks in d what they were part of. Without the store nothing can be
// had again, and everything stays.
func (m *Mirror) dropUnused(d dirty) (some bool) {
	p := m.part
	if p.feed == nil {
		return false
	}
	for _, b := range p.unused {
		if x := p.bundles[b]; x != nil && x.users == 0 {
			m.empty(d, x)
			delete(p.bundles, b)
			p.feed.Leave(b)
			some = true
		}
	}
	p.unused = nil
	return some
}

// pin wants what this host needs at any time: its ports with their devices, and the load balancers whose members it checks.
func (m *Mirror) pin(now int64) {
	p := m.part
	if !p.repin {
		return
	}
	p.repin = false
	was := p.pinned
	p.pinned = make(map[view.Thing]struct{}, len(was))
	add := func(k view.ThingKind, id uuid.UUID) {
		t := view.Thing{Kind: k, ID: id}
		p.pinned[t] = struct{}{}
		p.want(t, now)
	}
	for k := range p.bundles[m.roots()[0]].held {
		if k.Kind != model.KindBinding {
			continue
		}
		add(view.ThingPort, k.ID)
		if x, ok := get[*model.Port](m.graph, k.ID); ok {
			t := deviceOf(x)
			add(t.Kind, t.ID)
		}
	}
	for k := range p.bundles[model.AllBalancers].held {
		l, ok := get[*model.LoadBalancer](m.graph, k.ID)
		if ok && m.host != uuid.Nil && m.health.Elected(l.RouterID) == m.host {
			add(view.ThingBalancer, l.ID)
			add(view.ThingRouter, l.RouterID)
			add(view.ThingPort, health.Port(l.RouterID))
		}
	}
	for t := range was { // what is pinned no more has been used until now
		if w := p.things[t]; w != nil {
			w.used = now
		}
	}
}

func deviceOf(p *model.Port) view.Thing {
	if p.RouterID != uuid.Nil {
		return view.Thing{Kind: view.ThingRouter, ID: p.RouterID}
	}
	return view.Thing{Kind: view.ThingBridge, ID: p.BridgeID}
}

func compareThings(a, b view.Thing) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), slices.Compare(a.ID[:], b.ID[:]))
}

// things lists what is in d but for hosts.
func (d dirty) things() (list []view.Thing) {
	for k, set := range d.kinds() {
		for id := range set {
			list = append(list, view.Thing{Kind: view.ThingKind(k), ID: id})
		}
	}
	return list
}

func (d dirty) thing(t view.Thing) { d.kinds()[t.Kind][t.ID] = struct{}{} }

func (d dirty) without(t view.Thing) { delete(d.kinds()[t.Kind], t.ID) }

// with adds what is in e.
func (d dirty) with(e dirty) {
	for _, t := range e.things() {
		d.thing(t)
	}
	maps.Copy(d.hosts, e.hosts)
}

func (d dirty) kinds() [view.ThingBalancer + 1]map[uuid.UUID]struct{} {
	return [...]map[uuid.UUID]struct{}{
		view.ThingPort: d.ports, view.ThingBridge: d.bridges, view.ThingRouter: d.routers, view.ThingChain: d.chains,
		view.ThingGroup: d.groups, view.ThingSecurity: d.security, view.ThingBalancer: d.balancers,
	}
}
