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
	at := t.clock.Now() - int64(idle)
	f.used, e.used = max(f.used, at), max(e.used, at)
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

// counted tells of what the datapath has switched, and of what Wildcard has answered since.
func (t *Table) counted(e *Entry, packets, bytes uint64) {
	if packets += e.hits - e.reported; packets > 0 || bytes > 0 {
		t.cfg.Counted(e.note, packets, bytes)
	}
	e.reported = e.hits
}

// Expire looks at up to budget flows and entries whose time has come, removes
// those that were idle and returns how many that were. It is late by up to
// 1/128 of the longest of the times configured.
func (t *Table) Expire(budget int) (n int) {
	now := t.clock.Now()
	for ; budget > 0; budget-- {
		r := t.flowWheel.due(now)
		if r == 0 {
			break
		}
		f := t.exacts.at(r)
		deadline := f.used + int64(t.cfg.Idle)
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
		if e.kind == Stateful && e.used > e.refreshed && now-e.refreshed >= int64(t.cfg.Stateful) {
			e.refreshed = now
			if t.cfg.OnBusy != nil {
				t.cfg.OnBusy(e)
			}
		}
		t.entryWheel.add(r, t.entryDeadline(e, now))
		if t.expired(e, now) {
			t.stats.ExpiredEntries++
			t.remove(e)
			n++
		}
	}
	return n
}

func (t *Table) expired(e *Entry, now int64) bool {
	if e.kind == Error {
		return now >= e.created+int64(t.cfg.Error)
	}
	return e.nflows == 0 && now >= max(e.used, e.emptied)+int64(t.cfg.Idle)
}

// entryDeadline is when to look at e again.
func (t *Table) entryDeadline(e *Entry, now int64) int64 {
	if e.kind == Error {
		return e.created + int64(t.cfg.Error)
	}
	next := now + int64(t.cfg.Idle)
	if e.nflows == 0 {
		next = max(e.used, e.emptied) + int64(t.cfg.Idle)
	}
	if e.kind == Stateful {
		next = min(next, now+int64(t.cfg.Stateful))
	}
	return next
}
