package flow

import (
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Used tells what the datapath reports of a flow: how long ago its last packet
// was, and its counters since it was installed. Every flow is to be reported more
// often than Config.Idle, else it expires although it is busy.
func (t *Table) Used(k *match.Key, idle time.Duration, packets, bytes uint64) {
	r := t.findExact(k, t.hash(k))
	if r == 0 || t.exacts.at(r).state == dying {
		return
	}
	t.use(r, idle, packets, bytes)
}

func (t *Table) use(r ref, idle time.Duration, packets, bytes uint64) {
	f := t.exacts.at(r)
	e := t.entries.at(f.entry)
	at := stampOf(t.clock.Now() - int64(idle))
	f.used, e.used = later(f.used, at), later(e.used, at)
	if packets > 0 {
		t.came(f.entry)
	}
	if packets < f.packets || bytes < f.bytes { // put again since: counted from 0
		f.packets, f.bytes = 0, 0
	}
	e.packets += packets - f.packets
	e.bytes += bytes - f.bytes
	if e.note != 0 {
		t.counted(e, packets-f.packets, bytes-f.bytes)
	}
	f.packets, f.bytes = packets, bytes
}

// came says that a packet of an entry has.
func (t *Table) came(r ref) {
	e := t.entries.at(r)
	if e.by == 0 {
		return
	}
	t.unexpect(e)
	if t.cfg.Came != nil {
		t.cfg.Came(Entry{t, r})
	}
}

func (t *Table) unexpect(e *entry) {
	if e.by == 0 {
		return
	}
	if t.expected[e.by]--; t.expected[e.by] == 0 {
		delete(t.expected, e.by)
	}
	e.by = 0
}

// counted tells of what the datapath has switched, and of what Wildcard has answered since.
func (t *Table) counted(e *entry, packets, bytes uint64) {
	if packets += e.hits - e.reported; packets > 0 || bytes > 0 {
		t.cfg.Counted(e.note, packets, bytes)
	}
	e.reported = e.hits
}

// Expire looks at up to budget flows and entries whose time has come, removes
// those that were idle and returns how many that were. It is late by up to
// 1/128 of the longest of the times configured. A flow that is not yet flushed does not expire.
func (t *Table) Expire(budget int) (n int) {
	n, _ = t.expire(budget)
	return n
}

// expire also reports whether the budget was not enough.
func (t *Table) expire(budget int) (n int, more bool) {
	now := t.clock.Now()
	for ; budget > 0; budget-- {
		r := t.flowWheel.due(now)
		if r == 0 {
			break
		}
		deadline := t.exacts.at(r).used.time(now) + int64(t.cfg.Idle)
		t.flowWheel.add(r, deadline)
		if deadline <= now {
			t.stats.Expired++
			t.dropFlow(r)
			n++
		}
	}
	for ; budget > 0; budget-- {
		r := t.entryWheel.due(now)
		if r == 0 {
			break
		}
		e := t.entries.at(r)
		if e.kind == Stateful && int32(e.used-e.refreshed) > 0 && now-e.refreshed.time(now) >= int64(t.cfg.Stateful) {
			e.refreshed = stampOf(now)
			if t.cfg.OnBusy != nil {
				t.cfg.OnBusy(Entry{t, r})
			}
		}
		t.entryWheel.add(r, t.entryDeadline(e, now))
		if t.expired(e, now) {
			t.stats.ExpiredEntries++
			t.remove(r)
			n++
		}
	}
	return n, budget == 0
}

func (t *Table) expired(e *entry, now int64) bool {
	if e.kind == Error {
		return now >= e.created.time(now)+int64(t.cfg.Error)
	}
	return e.nflows == 0 && now >= later(e.used, e.emptied).time(now)+int64(t.cfg.Idle)
}

// entryDeadline is when to look at e again.
func (t *Table) entryDeadline(e *entry, now int64) int64 {
	if e.kind == Error {
		return e.created.time(now) + int64(t.cfg.Error)
	}
	next := now + int64(t.cfg.Idle)
	if e.nflows == 0 {
		next = later(e.used, e.emptied).time(now) + int64(t.cfg.Idle)
	}
	if e.kind == Stateful {
		next = min(next, now+int64(t.cfg.Stateful))
	}
	return next
}
