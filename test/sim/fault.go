package sim

import (
	"math/rand/v2"
	"time"
)

// faults are what goes wrong. Each is mended after a while, at the latest by heal.
var faults = []func(*Sim, *rand.Rand){
	faultPartition, faultStoreLink, faultStoreLink, faultStoreDown, faultKill, faultKill, faultKill, faultSlow, faultSlowStore, faultUnsure, faultUnsure, faultLoss, faultReorder, faultWatch, faultWatch, faultFeed, faultFeed, faultLostNews, faultClock,
}

func randomFault(s *Sim, r *rand.Rand) { pick(r, faults)(s, r) }

// until has something mended later, unless everything is by then.
func (s *Sim) until(d time.Duration, mend func()) {
	s.after(d, func() {
		if !s.quiet {
			mend()
		}
	})
}

func faultPartition(s *Sim, r *rand.Rand) {
	a, b := pick(r, s.hosts), pick(r, s.hosts)
	ways := [][2]*host{{a, b}}
	if !chance(r, 3) {
		ways = append(ways, [2]*host{b, a}) // else one way goes on
	}
	s.logf("%s does not reach %s, both ways: %v", a.name, b.name, len(ways) == 2)
	for _, w := range ways {
		s.links.cut[w] = true
	}
	s.until(between(r, 10*time.Millisecond, 15*time.Second), func() {
		s.logf("%s reaches %s again", a.name, b.name)
		for _, w := range ways {
			delete(s.links.cut, w)
		}
	})
}

func faultStoreLink(s *Sim, r *rand.Rand) {
	h := pick(r, s.hosts)
	if h.agent == nil || h.client.away {
		return
	}
	c := h.client
	s.logf("%s does not reach the store", h.name)
	c.cut(true)
	s.until(between(r, 10*time.Millisecond, 15*time.Second), func() {
		if !c.closed {
			s.logf("%s reaches the store again", h.name)
			c.cut(false)
		}
	})
}

func faultStoreDown(s *Sim, r *rand.Rand) {
	if s.store.down {
		return
	}
	s.storeDown(true)
	s.until(between(r, 10*time.Millisecond, 15*time.Second), func() { s.storeDown(false) })
}

// storeDown ends the server, or starts it again. What it has stored stays; watches break at once, leases begin anew.
func (s *Sim) storeDown(down bool) {
	if s.store.down == down {
		return
	}
	s.logf("the store is down: %v", down)
	s.store.down = down
	if !down {
		s.store.restart()
		return
	}
	for _, c := range s.store.clients {
		c.breakWatches(true)
	}
}

func faultKill(s *Sim, r *rand.Rand) {
	h := pick(r, s.hosts)
	if h.agent == nil {
		return
	}
	h.kill()
	d := between(r, time.Millisecond, 3*time.Second)
	if chance(r, 3) {
		d = between(r, 5*time.Second, 20*time.Second) // it is taken for dead
	}
	s.until(d, func() {
		if h.agent == nil {
			h.start()
		}
	})
}

func faultSlow(s *Sim, r *rand.Rand) {
	h := pick(r, s.hosts)
	h.slow = between(r, time.Millisecond, 200*time.Millisecond)
	s.logf("%s is slow by %v", h.name, h.slow)
	s.until(between(r, time.Second, 10*time.Second), func() { h.slow = 0 })
}

func faultSlowStore(s *Sim, r *rand.Rand) {
	h := pick(r, s.hosts)
	if h.agent == nil {
		return
	}
	c := h.client
	c.slow = between(r, time.Millisecond, 3*time.Second)
	s.logf("%s hears the store %v late", h.name, c.slow)
	s.until(between(r, time.Second, 10*time.Second), func() { c.slow = 0 })
}

func faultLoss(s *Sim, r *rand.Rand) {
	s.links.loss = 2 + r.IntN(10)
	s.logf("one in %d packets between hosts is lost", s.links.loss)
	s.until(between(r, time.Second, 10*time.Second), func() { s.links.loss = 0 })
}

func faultReorder(s *Sim, r *rand.Rand) {
	s.links.reorder = true
	s.logf("packets between hosts overtake each other")
	s.until(between(r, time.Second, 10*time.Second), func() { s.links.reorder = false })
}

func faultWatch(s *Sim, r *rand.Rand) {
	h := pick(r, s.hosts)
	if h.agent == nil {
		return
	}
	n := r.IntN(4)
	s.logf("%s: watches break after %d more events", h.name, n)
	h.client.breakInside(n)
}

// faultClock has time pass in which nobody does anything: as when the machine was suspended.
func faultClock(s *Sim, r *rand.Rand) {
	d := between(r, time.Second, 90*time.Second)
	s.logf("time jumps by %v", d)
	s.clock.Advance(d)
}

// misled has a host's client of the store be wrong in some way, for as long as most.
func (s *Sim) misled(r *rand.Rand, most time.Duration, how string, set func(c *client, wrong bool)) {
	h := pick(r, s.hosts)
	if h.agent == nil {
		return
	}
	c := h.client
	s.logf("%s %s", h.name, how)
	set(c, true)
	s.until(between(r, time.Second, most), func() { set(c, false) })
}

func faultUnsure(s *Sim, r *rand.Rand) {
	s.misled(r, 15*time.Second, "is not always told that it has written", func(c *client, wrong bool) { c.unsure = wrong })
}

// faultFeed has the store's feed tell things twice, and in another order.
func faultFeed(s *Sim, r *rand.Rand) {
	s.misled(r, 10*time.Second, "hears the store's changes twice, and in any order", func(c *client, wrong bool) { c.crooked = wrong })
}

// faultLostNews has it leave things out. Nobody can know until the next change, or until the store is compared with.
func faultLostNews(s *Sim, r *rand.Rand) {
	s.misled(r, 10*time.Second, "does not hear all of the store's changes", func(c *client, wrong bool) {
		if wrong {
			c.lossy = true
		} else {
			c.hearAgain()
		}
	})
}

// compareEvery is how often agents compare what they hold with the store.
const compareEvery = 8 * time.Second

// hearAgain ends that. What was left out is missed when it has been compared twice.
func (c *client) hearAgain() {
	if !c.lossy {
		return
	}
	c.lossy = false
	c.compared(4)
}

// compared waits so many times as long as a comparison is away at most: time that has jumped counts once.
func (c *client) compared(times int) {
	c.srv.s.after(compareEvery, func() {
		switch {
		case c.lossy:
		case times > 1:
			c.compared(times - 1)
		default:
			c.doubt = 0
		}
	})
}
