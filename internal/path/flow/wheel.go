package flow

const wheelSlots = 256

// timer is a value's place in a wheel.
type timer struct {
	links
	slot uint16
}

// wheel calls values when their time has come: never early, late by at most one
// tick. A deadline beyond its span comes round earlier; who looks at
// it then schedules it again.
type wheel struct {
	slots [wheelSlots]list
	timer func(ref) *timer
	of    lister
	tick  int64 // ns
	cur   int64 // tick whose slot is being drained
}

func newWheel(tick, now int64, at func(ref) *timer) wheel {
	return wheel{
		timer: at,
		of:    func(r ref) *links { return &at(r).links },
		tick:  max(tick, 1),
		cur:   now / max(tick, 1),
	}
}

func (w *wheel) add(r ref, deadline int64) {
	n := (deadline + w.tick - 1) / w.tick
	n = min(max(n, w.cur+1), w.cur+wheelSlots-1)
	s := uint16(n % wheelSlots)
	w.of.push(&w.slots[s], r)
	w.timer(r).slot = s
}

func (w *wheel) remove(r ref) { w.of.remove(&w.slots[w.timer(r).slot], r) }

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
