package flow

import (
	"iter"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Stats counts since New; the first four are of now.
type Stats struct {
	Flows   int // exact flows, installed or queued
	Dying   int // exact flows that wait to be deleted
	Entries int // wildcard entries
	Ports   int // ports of ingress with entries

	ExactHits, ExactMisses       uint64
	WildcardHits, WildcardMisses uint64
	Added                        uint64 // entries
	Installed, Deleted           uint64 // exact flows, as the datapath confirmed
	Invalidated                  uint64 // entries
	Expired, ExpiredEntries      uint64 // exact flows, entries
	Evicted, EvictedEntries      uint64 // for want of room
	MaskOverflow                 uint64 // entries for one key alone, because their port has too many masks
	UserSpace                    uint64 // entries that the datapath cannot hold
	Coarse                       uint64 // flows whose keys it cannot tell from others
	Refused                      uint64 // exact flows given up because the datapath is full or does not delete
	PutErrors, DelErrors         uint64 // flows, requests
	Adopted                      uint64 // flows kept from an earlier agent without a put
	Orphans, Differing           uint64 // flows that Audit found wrong
	Repaired                     uint64 // flows lost in the datapath and put again
}

// Stats reads the counters.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Flows, s.Dying, s.Entries, s.Ports = t.live, t.ndels, t.entryIdx.n, len(t.portList)
	return s
}

// Expected is how many entries wait for their first packet because of packets that came in by a port (Entry.Expect).
func (t *Table) Expected(by uint32) int { return t.expected[by] }

// PortFlows is how many exact flows and wildcard entries a port of ingress has.
func (t *Table) PortFlows(no uint32) (flows, entries int) {
	if p := t.ports[no]; p != nil {
		return p.flows, p.entries
	}
	return 0, 0
}

// Flow is one exact flow of a dump.
type Flow struct {
	Key            match.Key
	Entry          Entry
	Installed      bool // false: queued
	Used           int64
	Packets, Bytes uint64
}

// Flows yields every exact flow that is not about to be deleted, in no
// particular order. The table must not be changed meanwhile.
func (t *Table) Flows() iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		now := t.clock.Now()
		t.exactIdx.all(func(r ref) bool {
			f := t.exacts.at(r)
			if !t.answers(r) {
				return true
			}
			return yield(Flow{f.key, Entry{t, f.entry}, f.state == installed, f.used.time(now), f.packets, f.bytes})
		})
	}
}

// Entries yields every wildcard entry, in an order that depends on what has happened alone, not on how keys are hashed. The table must
// not be changed meanwhile.
func (t *Table) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for r := ref(1); r <= t.entries.next; r++ {
			if e := t.entries.at(r); !e.dead && !t.invalid(e) && !yield(Entry{t, r}) {
				return
			}
		}
	}
}

// Some calls fn for each wildcard entry among n places from one on, the first of which is 0, and returns where to go on; 0: that was all. The
// table may change between two calls: what has come meanwhile may be missed. fn must not change it.
func (t *Table) Some(from uint32, n int, fn func(Entry)) (next uint32) {
	r, end := ref(from)+1, ref(from)+ref(n)
	for ; r <= min(end, t.entries.next); r++ {
		if e := t.entries.at(r); !e.dead && !t.invalid(e) {
			fn(Entry{t, r})
		}
	}
	if r > t.entries.next {
		return 0
	}
	return uint32(end)
}
