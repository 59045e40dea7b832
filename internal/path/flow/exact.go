package flow

import "github.com/viaduct-net/viaduct/internal/base/match"

// Install queues the exact flow for k, an instance of e, unless the datapath
// cannot hold e's actions.
func (t *Table) Install(k *match.Key, e *Entry) {
	if e.user {
		return
	}
	t.attach(k, e)
}

// attach makes k a queued flow of e, or leaves it as it is when it is one already.
// 0: no room, because the datapath does not delete what it should.
func (t *Table) attach(k *match.Key, e *Entry) ref {
	h := t.hash(k)
	r := t.findExact(k, h)
	if r != 0 {
		f := t.exacts.at(r)
		if f.entry == e.self {
			return r
		}
		if f.state != dying {
			t.dropFlow(r) // another entry's: either frees it or leaves it dying
			r = t.findExact(k, h)
		}
	}
	if t.live >= t.cfg.MaxFlows {
		t.evictFlow(e.port)
	}
	if r == 0 {
		if t.ndels >= t.maxDying() {
			t.stats.Refused++
			return 0
		}
		r = t.exacts.get()
		*t.exacts.at(r) = exact{key: *k, hash: h}
		t.exactIdx.insert(h, r)
	} else {
		t.ofQueue.remove(&t.dels, r)
		t.ndels--
	}
	f, now := t.exacts.at(r), t.clock.Now()
	f.entry, f.state, f.used, f.packets, f.bytes = e.self, queued, now, 0, 0
	t.ofQueue.push(&t.puts, r)
	t.nputs++
	t.live++
	e.port.flows++
	if e.nflows == 0 {
		t.ofPort.remove(&e.port.idle[e.kind], e.self)
		t.ofPort.push(&e.port.busy[e.kind], e.self)
	}
	e.nflows++
	t.ofEntry.push(&e.flows, r)
	t.flowWheel.add(r, now+int64(t.cfg.Idle))
	return r
}

// requeue has an installed flow put again.
func (t *Table) requeue(r ref) {
	t.exacts.at(r).state = queued
	t.ofQueue.push(&t.puts, r)
	t.nputs++
}

// confirm says that the datapath has a queued flow.
func (t *Table) confirm(r ref) {
	f := t.exacts.at(r)
	t.ofQueue.remove(&t.puts, r)
	t.nputs--
	f.state, f.present, f.put = installed, true, t.clock.Now()
}

// dropFlow takes a live flow out of the copy. When the datapath may hold it, it
// stays known as dying until a Flush has deleted it.
func (t *Table) dropFlow(r ref) {
	f := t.exacts.at(r)
	e := t.entries.at(f.entry)
	if f.state == queued {
		t.ofQueue.remove(&t.puts, r)
		t.nputs--
	}
	t.flowWheel.remove(r)
	t.ofEntry.remove(&e.flows, r)
	t.live--
	e.port.flows--
	if e.nflows--; e.nflows == 0 {
		e.emptied = t.clock.Now()
		t.ofPort.remove(&e.port.busy[e.kind], e.self)
		t.ofPort.push(&e.port.idle[e.kind], e.self)
	}
	f.entry = 0
	if f.present {
		f.state = dying
		t.ofQueue.push(&t.dels, r)
		t.ndels++
		return
	}
	t.free(r)
}

func (t *Table) free(r ref) {
	t.exactIdx.remove(t.exacts.at(r).hash, r)
	t.exacts.put(r)
}

// maxDying bounds what waits for a datapath that does not delete: a whole table,
// and once more what came after it.
func (t *Table) maxDying() int { return 2 * t.cfg.MaxFlows }
