package flow

import (
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/prefetch"
)

// A full table is in no cache. What is going to be read of it is known before: of a packet that has been read off its ring, and of the
// entry that goes next to make room. So it is fetched while others are served.

// wildAhead is how many of a port's masks are looked under ahead: those that are used most come first.
const wildAhead = 2

// Ahead has what lookups of k will read brought into the cache. tracked: entries of its port depend on connections, so that this one is likely to.
func (t *Table) Ahead(k *match.Key) (tracked bool) {
	t.exactIdx.ahead(t.hash(k))
	p := t.ports[k.InPort]
	if p == nil || p.busy[Stateful].head == 0 && p.idle[Stateful].head == 0 {
		return false // what few masks leave of a key is in the cache anyway
	}
	for i := range min(len(p.masks), wildAhead) {
		m := p.masks[i].mask
		mk := m.Apply(k)
		t.entryIdx.ahead(t.maskedHash(&mk, m))
	}
	return true
}

// AheadTag has what depends on a tag of this hash brought into the cache, as far as the index goes.
func (t *Table) AheadTag(hash uint64) { t.tags.idx.ahead(uint32(hash)) }

// evictAhead has what a port's next evictions will read brought into the cache, each a step further than the last time: of the third
// entry from now the entry, of the second what it names, of the first the places in indexes that these are at.
func (t *Table) evictAhead(p *port) {
	first := p.first()
	if first == 0 {
		return
	}
	e := t.entries.at(first)
	t.placesAhead(e)
	if second := e.nbrs.next; second != 0 {
		e = t.entries.at(second)
		t.exacts.ahead(e.flows.head)
		t.exacts.ahead(e.spare)
		t.tags.refs.ahead(e.tags)
		t.kept.ahead(e.kept)
		t.entries.ahead(e.nbrs.next)
	}
}

// placesAhead is the last step of evictAhead.
func (t *Table) placesAhead(e *entry) {
	if r := e.flows.head; r != 0 {
		k := &t.exacts.at(r).key
		t.exactIdx.ahead(t.hash(k))
		mk := e.mask.Apply(k)
		t.entryIdx.ahead(t.maskedHash(&mk, e.mask))
	}
	for r := e.tags; r != 0; r = t.tags.refs.at(r).more {
		t.tags.idx.ahead(t.tags.refs.at(r).hash)
	}
	if t.cfg.Ahead == nil {
		return
	}
	for r := e.kept; r != 0; r = t.kept.at(r).more {
		t.cfg.Ahead(&t.kept.at(r).tag, t.kept.at(r).handle)
	}
}

// ahead has the value at r, if there is one, brought into the cache.
func (s *slab[T]) ahead(r ref) {
	if r != 0 {
		prefetch.Value(s.at(r))
	}
}

// ahead has the place of a hash brought into the cache.
func (x *index) ahead(h uint32) {
	x.slots.ahead(h)
	if x.old != nil {
		x.old.ahead(h)
	}
}

func (p probes) ahead(h uint32) { prefetch.Value(&p[p.home(h)]) }
