package flow

import "github.com/viaduct-net/viaduct/internal/base/match"

// port is what one ingress port holds. Masks are per port, so that what one
// tenant sends cannot slow the lookups of another.
type port struct {
	no      uint32
	id      uint32 // in Table.portTab
	pos     int    // in Table.portList
	gone    bool   // its entries are invalid: see stale.go
	flows   int
	entries int
	masks   []maskUse   // most used first, roughly
	busy    [kinds]list // entries with exact flows
	idle    [kinds]list // entries without
}

type maskUse struct {
	mask    match.Mask
	entries int
}

// hold counts an entry under mask and returns the mask that it gets: All when the port has
// max masks already and this is not one of them.
func (p *port) hold(mask match.Mask, max int) match.Mask {
	wild := 0
	for i := range p.masks {
		if p.masks[i].mask == mask {
			p.masks[i].entries++
			return mask
		}
		if p.masks[i].mask != match.All {
			wild++
		}
	}
	if mask != match.All && wild >= max {
		return p.hold(match.All, max)
	}
	p.masks = append(p.masks, maskUse{mask, 1})
	return mask
}

func (p *port) release(mask match.Mask) {
	for i := range p.masks {
		if p.masks[i].mask == mask {
			if p.masks[i].entries--; p.masks[i].entries == 0 {
				p.masks = append(p.masks[:i], p.masks[i+1:]...)
			}
			return
		}
	}
}

// portOf finds or makes the port of ingress.
func (t *Table) portOf(no uint32) *port {
	if p := t.ports[no]; p != nil {
		return p
	}
	var p *port
	if n := len(t.portFree); n > 0 {
		p, t.portFree = t.portFree[n-1], t.portFree[:n-1]
	} else {
		p = &port{id: uint32(len(t.portTab))}
		t.portTab = append(t.portTab, p)
	}
	p.no, p.pos = no, len(t.portList)
	t.ports[no] = p
	t.portList = append(t.portList, p)
	return p
}

func (t *Table) portAt(id uint32) *port { return t.portTab[id] }

// leave lets go of a port that has nothing any more, for ports come and go.
func (t *Table) leave(p *port) {
	if p.entries > 0 || p.flows > 0 || p.gone {
		return
	}
	last := t.portList[len(t.portList)-1]
	t.portList[p.pos] = last
	last.pos = p.pos
	t.portList = t.portList[:len(t.portList)-1]
	if t.ports[p.no] == p {
		delete(t.ports, p.no)
	}
	t.portFree = append(t.portFree, p)
}

// evictFlow deletes an exact flow of the port that has the most, its cheapest
// kind and there its oldest first; between equals, of by, who asks for the room. What is invalid goes before. The ports
// are scanned: a nanosecond each, and only when the table is full.
func (t *Table) evictFlow(by *port) bool {
	if dead := t.stale.dead.head; dead != 0 {
		t.dropFlow(t.entries.at(dead).flows.head)
		return true
	}
	most := by
	for _, p := range t.portList {
		if p.flows > most.flows {
			most = p
		}
	}
	for k := range most.busy {
		if e := most.busy[k].head; e != 0 {
			t.stats.Evicted++
			t.dropFlow(t.entries.at(e).flows.head)
			return true
		}
	}
	return false
}

// evictEntry does the same for entries. One without exact flows goes before one
// of its kind that has some.
func (t *Table) evictEntry(by uint32) {
	if t.stale.queue.head != 0 || len(t.stale.ports) > 0 {
		for n := t.entryIdx.n; t.entryIdx.n == n && (t.stale.queue.head != 0 || len(t.stale.ports) > 0); {
			t.tendStale()
		}
		if t.entryIdx.n < t.cfg.MaxFlows {
			return
		}
	}
	most := t.ports[by]
	if most == nil {
		most = t.portList[0]
	}
	for _, p := range t.portList {
		if p.entries > most.entries {
			most = p
		}
	}
	t.stats.EvictedEntries++
	t.remove(most.first())
	t.evictAhead(most)
}

// first is the entry that goes first; 0 when there is none.
func (p *port) first() ref {
	for k := range p.busy {
		if r := p.idle[k].head; r != 0 {
			return r
		}
		if r := p.busy[k].head; r != 0 {
			return r
		}
	}
	return 0
}
