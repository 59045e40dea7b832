package flow

import "github.com/viaduct-net/viaduct/internal/base/match"

// Install queues the exact flow for k, an instance of e, unless the datapath
// cannot hold e's actions.
func (t *Table) Install(k *match.Key, e Entry) {
	if e.at().user {
		return
	}
	t.attach(k, e.r)
}

// attach makes k a queued flow of an entry, or leaves it as it is when it is one already.
// 0: no room, because the datapath does not delete what it should.
func (t *Table) attach(k *match.Key, er ref) ref {
	h := t.hash(k)
	r := t.findExact(k, h)
	if r != 0 {
		f := t.exacts.at(r)
		if f.entry == er {
			return r
		}
		if f.state != dying {
			t.dropFlow(r) // another entry's: either frees it or leaves it dying
			r = t.findExact(k, h)
		}
	}
	e := t.entries.at(er)
	p := t.portAt(e.port)
	if t.live >= t.cfg.MaxFlows {
		t.evictFlow(p)
	}
	switch {
	case r != 0: // dying
		t.ofPlace.remove(&t.dels, r)
		t.ndels--
	case t.ndels >= t.maxDying():
		t.stats.Refused++
		return 0
	case e.spare != 0:
		r, e.spare = e.spare, 0
		*t.exacts.at(r) = exact{key: *k}
		t.exactIdx.insert(h, r)
	default:
		r = t.exacts.get()
		*t.exacts.at(r) = exact{key: *k}
		t.exactIdx.insert(h, r)
	}
	if e.spare != 0 {
		t.exacts.put(e.spare)
		e.spare = 0
	}
	f := t.exacts.at(r)
	f.entry, f.state, f.used, f.packets, f.bytes = er, queued, stampOf(t.clock.Now()), 0, 0
	t.ofPlace.push(&t.puts, r)
	t.nputs++
	t.live++
	p.flows++
	if e.nflows == 0 {
		t.ofPort.remove(&p.idle[e.kind], er)
		t.ofPort.push(&p.busy[e.kind], er)
	}
	e.nflows++
	t.ofEntry.push(&e.flows, r)
	return r
}

// requeue has an installed flow put again.
func (t *Table) requeue(r ref) {
	t.flowWheel.remove(r)
	t.exacts.at(r).state = queued
	t.ofPlace.push(&t.puts, r)
	t.nputs++
}

// confirm says that the datapath has a queued flow.
func (t *Table) confirm(r ref) {
	f, now := t.exacts.at(r), t.clock.Now()
	t.ofPlace.remove(&t.puts, r)
	t.nputs--
	f.state, f.present, f.put = installed, true, stampOf(now)
	t.flowWheel.add(r, f.used.time(now)+int64(t.cfg.Idle))
}

// dropFlow takes a live flow out of the copy. When the datapath may hold it, it
// stays known as dying until a Flush has deleted it.
func (t *Table) dropFlow(r ref) {
	f := t.exacts.at(r)
	er := f.entry
	e := t.entries.at(er)
	p := t.portAt(e.port)
	if f.state == queued {
		t.ofPlace.remove(&t.puts, r)
		t.nputs--
	} else {
		t.flowWheel.remove(r)
	}
	t.ofEntry.remove(&e.flows, r)
	t.live--
	p.flows--
	f.entry = 0
	if e.nflows--; e.nflows == 0 {
		t.emptied(er, r)
	}
	if f.present {
		f.state = dying
		t.ofPlace.push(&t.dels, r)
		t.ndels++
	} else {
		t.free(r)
	}
}

// emptied looks after an entry whose last flow, last, goes.
func (t *Table) emptied(er, last ref) {
	e := t.entries.at(er)
	if e.dead {
		t.bury(er)
		return
	}
	e.spare = t.exacts.get()
	*t.exacts.at(e.spare) = exact{key: t.exacts.at(last).key, state: spare}
	e.emptied = stampOf(t.clock.Now())
	p := t.portAt(e.port)
	t.ofPort.remove(&p.busy[e.kind], er)
	t.ofPort.push(&p.idle[e.kind], er)
}

func (t *Table) free(r ref) {
	t.exactIdx.remove(t.hash(&t.exacts.at(r).key), r)
	t.exacts.put(r)
}

// maxDying bounds what waits for a datapath that does not delete: a whole table,
// and once more what came after it.
func (t *Table) maxDying() int { return 2 * t.cfg.MaxFlows }
