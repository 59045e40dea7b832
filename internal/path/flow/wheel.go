package flow

const wheelSlots = 256

// wheel calls values when their time has come: never early, late by at most one
// tick. A deadline beyond its span comes round earlier; who looks at
// it then schedules it again.
type wheel struct {
	slots [wheelSlots]list
	of    lister
	slot  func(ref) *uint8 // where a value keeps which slot it is in
	tick  int64            // ns
	cur   int64            // tick whose slot is being drained
}

func newWheel(tick, now int64, of lister, slot func(ref) *uint8) wheel {
	return wheel{of: of, slot: slot, tick: max(tick, 1), cur: now / max(tick, 1)}
}

func (w *wheel) add(r ref, deadline int64) {
	n := (deadline + w.tick - 1) / w.tick
	n = min(max(n, w.cur+1), w.cur+wheelSlots-1)
	s := uint8(n % wheelSlots)
	w.of.push(&w.slots[s], r)
	*w.slot(r) = s
}

func (w *wheel) remove(r ref) { w.of.remove(&w.slots[*w.slot(r)], r) }

// due takes out the next value whose time has come, or returns 0.
func (w *wheel) due(now int64) ref {
	n := now / w.tick
	w.cur = max(w.cur, n-wheelSlots) // after a long pause every slot is visited once
	for {
		if l := &w.slots[w.cur%wheelSlots]; l.head != 0 {
			r := l.head
			w.of.remove(l, r)
			return r
		}
		if w.cur >= n {
			return 0
		}
		w.cur++
	}
}
