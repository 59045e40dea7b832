package flow

import "github.com/viaduct-net/viaduct/internal/base/tag"

// What a change makes invalid may be a million flows. So that packets are served meanwhile, an invalidation removes what a turn has
// time for, and only marks the rest: a tag, or a port, is stale. What is marked answers no lookup from then on. Tend
// removes it in order, some at each turn, and what new packets ask for goes at once.

const (
	perTurn = 256 // how many entries and flows invalidations remove between two calls of Tend
	atOnce  = 16  // how many flows go together with their entry
)

// staleTag is a tag whose holders, those of its list, are invalid. The index does not know the list any more: who gets the
// tag now begins a new one, and is of a later epoch.
type staleTag struct {
	hash  uint32
	head  ref
	epoch uint32
	queue links
}

// stale is what is to be gone through.
type stale struct {
	epoch   uint32 // counts stale tags
	tags    slab[staleTag]
	tagIdx  index
	queue   list // of tags, oldest first
	ofQueue lister
	ports   []*port // whose entries are invalid
	dead    list    // entries that are out of the table but for some of their flows
	left    int     // of perTurn
}

func (s *stale) add(hash uint32, head ref) {
	r := s.tags.get()
	*s.tags.at(r) = staleTag{hash: hash, head: head, epoch: s.epoch}
	s.tagIdx.insert(hash, r)
	s.ofQueue.push(&s.queue, r)
	s.epoch++
}

func (s *stale) remove(r ref) {
	s.tagIdx.remove(s.tags.at(r).hash, r)
	s.ofQueue.remove(&s.queue, r)
	s.tags.put(r)
}

// has reports whether something of that epoch with this tag is invalid.
func (s *stale) has(hash, born uint32) bool {
	for p, r := s.tagIdx.first(hash); r != 0; p, r = s.tagIdx.next(p, hash) {
		if int32(born-s.tags.at(r).epoch) <= 0 {
			return true
		}
	}
	return false
}

// starts finds the stale tag whose list begins with head.
func (s *stale) starts(head ref, hash uint32) *staleTag {
	if s.queue.head == 0 {
		return nil
	}
	for p, r := s.tagIdx.first(hash); r != 0; p, r = s.tagIdx.next(p, hash) {
		if q := s.tags.at(r); q.head == head {
			return q
		}
	}
	return nil
}

// invalid reports whether an entry that is still in the table must not answer.
func (t *Table) invalid(e *entry) bool {
	if e.dead || t.portAt(e.port).gone {
		return true
	}
	if t.stale.queue.head == 0 {
		return false
	}
	for r := e.tags; r != 0; r = t.tags.refs.at(r).more {
		if t.stale.has(t.tags.refs.at(r).hash, e.born) {
			return true
		}
	}
	return e.set != 0 && t.staleSet(e.set)
}

// staleSet reports whether one of a set's tags is stale. A set is looked through once per epoch.
func (t *Table) staleSet(r ref) bool {
	s := t.tags.sets.at(r)
	if t.stale.queue.head == 0 || s.checked == t.stale.epoch {
		return false
	}
	for n := s.tags; n != 0; n = t.tags.refs.at(n).more {
		if t.stale.has(t.tags.refs.at(n).hash, s.born) {
			return true
		}
	}
	s.checked = t.stale.epoch
	return false
}

// Invalidate removes the entries that carry a tag of this hash, and deletes their flows. It returns how many entries have gone; when
// there are very many, the others go with the next calls of Tend, and answer nothing from now on.
func (t *Table) Invalidate(hash uint64) (n int) {
	h := uint32(hash)
	for r := t.tags.find(h); r != 0; r = t.tags.find(h) {
		if t.stale.left <= 0 {
			t.tags.idx.remove(h, r)
			t.stale.add(h, r)
			break
		}
		t.removeHolder(r)
		n++
	}
	return n
}

// removeHolder removes the entry that has a tag, or the first of a set that has it.
func (t *Table) removeHolder(r ref) {
	e := t.tags.refs.at(r).holder
	if e&isSet != 0 {
		e = t.tags.sets.at(e &^ isSet).entries.head
	}
	t.invalidate(e)
}

func (t *Table) invalidate(e ref) {
	t.stats.Invalidated++
	t.stale.left -= 1 + int(min(t.entries.at(e).nflows, atOnce))
	t.remove(e)
}

// InvalidatePort removes what entered through a datapath port and what leaves
// through it (by its tag.DPPort). It returns how many entries have gone, as Invalidate does.
func (t *Table) InvalidatePort(no uint32) (n int) {
	if p := t.ports[no]; p != nil {
		for p.entries > 0 && t.stale.left > 0 {
			t.invalidate(p.first())
			n++
		}
		if p.entries > 0 {
			p.gone = true
			delete(t.ports, no) // a new port of that number is another one
			t.stale.ports = append(t.stale.ports, p)
		}
	}
	dp := tag.Tag{Kind: tag.DPPort, N: no}
	return n + t.Invalidate(dp.Hash())
}

// Tend removes what invalidations have left over and what has expired, up to budget entries and flows of each, and
// reports whether there is more to do now. It is to be called at every turn.
func (t *Table) Tend(budget int) (more bool) {
	for left := budget; left > 0; left-- {
		flows := t.live
		if !t.tendStale() {
			break
		}
		left -= flows - t.live
	}
	t.stale.left = perTurn
	_, more = t.expire(budget)
	return more || t.Stale()
}

// tendStale removes one entry or flow that an invalidation has left over.
func (t *Table) tendStale() bool {
	s := &t.stale
	switch {
	case s.queue.head != 0:
		if q := s.tags.at(s.queue.head); q.head != 0 {
			t.removeHolder(q.head)
		} else {
			s.remove(s.queue.head)
		}
	case len(s.ports) > 0:
		p := s.ports[0]
		if p.entries > 0 {
			t.invalidate(p.first())
		} else {
			s.ports = s.ports[:copy(s.ports, s.ports[1:])]
			p.gone = false
			t.leave(p)
		}
	case s.dead.head != 0:
		t.dropFlow(t.entries.at(s.dead.head).flows.head)
	default:
		return false
	}
	return true
}

// Stale reports whether there is something left over from invalidations.
func (t *Table) Stale() bool {
	return t.stale.queue.head != 0 || len(t.stale.ports) > 0 || t.stale.dead.head != 0
}
