package worker

import (
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/prep"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// learn commits what the simulation has learnt: the tables first, then this worker's own flows are
// invalidated before the new one is added, then the other workers are told. why is other than None when the packet
// teaches more than its port may.
func (w *Worker) learn() (why drop.Reason) {
	if len(w.sim.Learn) == 0 {
		w.changed = w.changed[:0]
		return drop.None
	}
	w.answered()
	changed := w.changed[:0]
	for i := range w.sim.Learn {
		var t tag.Tag
		var news bool
		ok, full := true, drop.TooManyNeighs
		switch l := &w.sim.Learn[i]; l.Kind {
		case sim.LearnMAC:
			full = drop.TooManyMACs
			t, news, ok = w.tables.LearnMAC(l.Device, l.VLAN, l.MAC, l.Port)
		case sim.LearnNeighbour:
			t, news, ok = w.tables.LearnNeighbour(l.Device, l.Addr, l.MAC, l.Port)
		case sim.LearnBridgeNeighbour:
			t, news, ok = w.tables.LearnBridgeNeighbour(l.Device, l.VLAN, l.Addr, l.MAC, l.Port)
		}
		if news {
			changed = append(changed, t)
		}
		if !ok {
			why = full
		}
	}
	w.publish(changed)
	return why
}

// selfTaught reports whether what the packet has just taught is what its own decision asked for in vain: as when it comes back to the bridge that
// has learnt its source from it. It is decided anew then, since nothing would invalidate the flow.
func (w *Worker) selfTaught() bool {
	for i := range w.changed {
		if t := &w.changed[i]; t.Kind == tag.MACEntry {
			asked := 0
			for j := range w.sim.Tags {
				if w.sim.Tags[j] == *t {
					asked++
				}
			}
			if asked > 1 { // once for having learnt it
				return true
			}
		}
	}
	return false
}

// publish has everybody's flows that depend on what has changed removed, and those who wait woken: this worker's own now, the others'
// with the batch, before its packets leave.
func (w *Worker) publish(changed []tag.Tag) {
	w.changed = changed
	if len(changed) == 0 {
		return
	}
	w.explainLearnt(changed)
	w.recall.changedTags(changed)
	var last uint64
	for i := range changed {
		h := changed[i].Hash()
		if h == last {
			continue // the other direction of the same connection
		}
		last = h
		w.flows.Invalidate(h)
		w.news = append(w.news, changed[i])
	}
}

// announce tells the other workers what this one has changed.
func (w *Worker) announce() {
	if len(w.news) == 0 {
		return
	}
	w.tell(w, w.news)
	if w.lot.Parked() > 0 {
		tags := slices.Clone(w.news)
		w.Do(func() { w.Wake(tags) })
	}
	w.news = w.news[:0]
}

// Wake sends the packets that wait for one of the tags through the stages again. Call it through Do.
func (w *Worker) Wake(tags []tag.Tag) {
	if w.lot.Parked() == 0 {
		return
	}
	w.now = w.clock.Now()
	woken := w.woken[:0]
	for i := range tags {
		woken = w.lot.Wake(tags[i], woken)
	}
	w.woken = woken
	w.restart(woken)
}

// restart takes packets that waited through the stages from the top. They hold no token. Duplicates get the treatment of
// the packet they follow: most meet its flow in stage 3, those of a consumed one are discarded.
func (w *Worker) restart(woken []prep.Woken) {
	consumed := false
	for _, p := range woken {
		if p.Dup && consumed {
			w.giveUp(p.Miss, drop.HeldDiscarded)
			continue
		}
		w.counts.Waiting--
		w.ingress = p.Miss.Key.InPort
		w.beginTrace(p.Miss, " (waited, starts again)")
		before, copies := w.counts.Consumed, w.batch.copies
		kept := w.guarded(p.Miss)
		w.endTrace()
		if !p.Dup {
			consumed = w.counts.Consumed != before
		}
		if !kept {
			w.batch.end(p.Miss, copies)
		}
	}
}

// expireParked ends the packets that have waited too long.
func (w *Worker) expireParked() {
	if at, ok := w.lot.Deadline(); !ok || at > w.now {
		return
	}
	w.woken = w.lot.Expire(w.now, w.woken[:0])
	for _, p := range w.woken {
		w.giveUp(p.Miss, drop.ParkTimeout)
	}
}

// hold has a packet wait for the same one that is being simulated, if there is one.
func (w *Worker) hold(m *datapath.Miss) (held bool) {
	held, oldest := w.lot.Hold(m)
	if oldest != nil {
		w.giveUp(oldest, drop.HeldOverflow)
	}
	if held {
		w.counts.Waiting++
		w.explainHeld()
	}
	return held
}

// giveUp ends a packet that waited. Another one may be at hand.
func (w *Worker) giveUp(m *datapath.Miss, why drop.Reason) {
	ingress, tree, traced := w.ingress, w.trace, w.traced
	w.ingress, w.trace = m.Key.InPort, nil
	w.counts.Waiting--
	w.beginTrace(m, " (waited)")
	w.drop(why)
	w.endTrace()
	w.queue.Recycle(m)
	w.ingress, w.trace, w.traced = ingress, tree, traced
}

// holds: a flow keeps what it depends on from expiring: neighbours, connections that exist, unless it drops what is not allowed of them any
// more, and its own source MAC, not the destination's: who only receives is not known to be there.
func (w *Worker) holds(k *match.Key, t *tag.Tag) bool {
	switch t.Kind {
	case tag.MACEntry:
		return t.MAC == k.EthSrc
	case tag.Neighbour:
		return true
	case tag.Connection, tag.Translation, tag.Destination, tag.Affinity:
		return w.sim.Result == sim.ResultForward
	}
	return false
}
