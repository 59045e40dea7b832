package flow

// Reconfigure changes bounds and times, for what is there too; the functions of the configuration stay. What is beyond a lower MaxFlows
// goes by Trim, what is beyond a lower MaxMasks in its own time. It takes as long as looking at everything once when
// times change.
func (t *Table) Reconfigure(cfg Config) {
	was := t.cfg
	t.cfg = cfg.withDefaults()
	t.cfg.OnBusy, t.cfg.Came = was.OnBusy, was.Came
	t.cfg.Holds, t.cfg.Hold, t.cfg.Release, t.cfg.Ahead = was.Holds, was.Hold, was.Release, was.Ahead
	t.cfg.Counted, t.cfg.Forgotten = was.Counted, was.Forgotten
	if t.cfg.Idle != was.Idle || t.cfg.Error != was.Error || t.cfg.Stateful != was.Stateful {
		t.reschedule()
	}
}

// Trim evicts up to budget flows or entries beyond MaxFlows, as an Add would, and reports whether there are more.
func (t *Table) Trim(budget int) (more bool) {
	for ; t.live > t.cfg.MaxFlows; budget-- {
		if budget == 0 {
			return true
		}
		t.evictFlow(t.portList[0])
	}
	for ; t.entryIdx.n > t.cfg.MaxFlows; budget-- {
		if budget == 0 {
			return true
		}
		t.evictEntry(t.portList[0].no)
	}
	return false
}

func (t *Table) newWheels() {
	longest := max(t.cfg.Idle, t.cfg.Error, t.cfg.Stateful)
	tick, now := int64(longest)/(wheelSlots/2), t.clock.Now()
	t.flowWheel = newWheel(tick, now, t.ofPlace, func(r ref) *uint8 { return &t.exacts.at(r).slot })
	t.entryWheel = newWheel(tick, now, func(r ref) *links { return &t.entries.at(r).timer }, func(r ref) *uint8 { return &t.entries.at(r).slot })
}

// reschedule puts everything into new wheels, for the times as they are now.
func (t *Table) reschedule() {
	t.newWheels()
	now := t.clock.Now()
	flows := func(e *entry) {
		for f := e.flows.head; f != 0; f = t.ofEntry(f).next {
			if x := t.exacts.at(f); x.state == installed {
				x.place = links{}
				t.flowWheel.add(f, x.used.time(now)+int64(t.cfg.Idle))
			}
		}
	}
	for _, p := range t.portList {
		for k := range kinds {
			for _, l := range [...]list{p.busy[k], p.idle[k]} {
				for r := l.head; r != 0; r = t.ofPort(r).next {
					e := t.entries.at(r)
					e.timer = links{}
					t.entryWheel.add(r, t.entryDeadline(e, now))
					flows(e)
				}
			}
		}
	}
	for r := t.stale.dead.head; r != 0; r = t.ofPort(r).next {
		flows(t.entries.at(r))
	}
}
