package worker

import (
	"encoding/binary"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// count adds a packet, which came in by a port, to the rules that it has fitted, and notes it for those that log.
func (w *Worker) count(m *datapath.Miss, port uuid.UUID) {
	for _, r := range w.sim.Rules {
		if n := r.Counters; n != nil {
			n.Hits.Add(1)
			n.Packets.Add(1)
			n.Bytes.Add(uint64(len(m.Frame)))
		}
	}
	for i := range w.sim.Logged {
		w.rules.add(port, &w.sim.Logged[i], w.now)
	}
}

// note has the packets of a flow counted at the rules that the simulation at hand has passed.
func (w *Worker) note(e flow.Entry) {
	if e.Note() != 0 {
		return // shared with a flow that was adopted before
	}
	if n := w.passed.take(w.sim.Rules); n != 0 {
		e.SetNote(n)
	}
}

// ruleLists are the lists of rules that flows have passed, each once, by number from 1 on. Most flows share theirs.
type ruleLists struct {
	lists  []ruleList // number 1 is the first
	free   []uint32
	number map[uint64]uint32 // by digest
}

type ruleList struct {
	counters []*view.RuleCounters
	digest   uint64
	flows    int
}

// take numbers the list; 0: there is nothing to be counted. Each take is followed by one drop.
func (l *ruleLists) take(rules []*view.Rule) uint32 {
	if len(rules) == 0 {
		return 0
	}
	var digest uint64
	for _, r := range rules {
		digest = (digest ^ binary.BigEndian.Uint64(r.ID[:8]) ^ binary.BigEndian.Uint64(r.ID[8:])) * 0x9e3779b97f4a7c15
	}
	if n := l.number[digest]; n != 0 && slices.EqualFunc(l.lists[n-1].counters, rules, func(c *view.RuleCounters, r *view.Rule) bool { return c == r.Counters }) {
		l.lists[n-1].flows++
		return n
	}
	var n uint32
	if k := len(l.free); k > 0 {
		n, l.free = l.free[k-1], l.free[:k-1]
	} else {
		l.lists = append(l.lists, ruleList{})
		n = uint32(len(l.lists))
	}
	x := &l.lists[n-1]
	x.counters, x.digest, x.flows = x.counters[:0], digest, 1
	for _, r := range rules {
		x.counters = append(x.counters, r.Counters)
	}
	if l.number == nil {
		l.number = make(map[uint64]uint32)
	}
	l.number[digest] = n // a rule that was replaced by another with its id has other counters
	return n
}

// count implements flow.Config.Counted.
func (l *ruleLists) count(n uint32, packets, bytes uint64) {
	for _, c := range l.lists[n-1].counters {
		if c != nil {
			c.Packets.Add(packets)
			c.Bytes.Add(bytes)
		}
	}
}

// hit counts a flow that was expected, now that a packet of it has come.
func (l *ruleLists) hit(n uint32) {
	for _, c := range l.lists[n-1].counters {
		if c != nil {
			c.Hits.Add(1)
		}
	}
}

// drop implements flow.Config.Forgotten.
func (l *ruleLists) drop(n uint32) {
	x := &l.lists[n-1]
	if x.flows--; x.flows > 0 {
		return
	}
	if l.number[x.digest] == n {
		delete(l.number, x.digest)
	}
	l.free = append(l.free, n)
}
