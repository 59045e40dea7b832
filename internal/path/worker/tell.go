package worker

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// What is told beside the packets themselves: again, because nobody has acknowledged it or because it is in use; and at length,
// to a host that has begun anew, or that gets a port.

// resend repeats what was not acknowledged in time, and gives up in the end: what is still in use is told again anyway (refresh).
func (w *Worker) resend() {
	p := &w.peers
	if p.first == p.next || w.now < p.due {
		return
	}
	port := w.ports.Tunnel()
	p.due = w.now + resendAfter
	for seq := p.first; seq != p.next; seq++ {
		m := &p.ring[seq%unackedMax]
		if m.tries == 0 {
			continue
		}
		if at := m.at + resendAfter<<(m.tries-1); w.now < at {
			p.due = min(p.due, at)
			continue
		}
		if m.tries == resendAtMost || port == 0 {
			m.part.lost()
			m.tries, m.part = 0, nil
			p.given++
			continue
		}
		m.tries++
		m.at = w.now
		p.retold++
		replicate.SetRepeated(m.frame)
		w.sendMessage(port, m)
	}
	p.skipAcked()
}

// siblings appends the hosts of the siblings of a port that are not among those told.
func (w *Worker) siblings(port uuid.UUID) (some bool) {
	v := w.snapshot.Port(port)
	if v == nil || len(v.Siblings) == 0 {
		return false
	}
	for _, id := range v.Siblings {
		if _, to, _, ok := w.snapshot.Remote(id); ok && !slices.Contains(w.peers.told, to) {
			w.peers.told = append(w.peers.told, to)
		}
	}
	return true
}

// tellSiblings tells the hosts of a port's siblings that were not told yet.
func (w *Worker) tellSiblings(port uuid.UUID, cs []replicate.Conn, sum uint32) {
	tunnel := w.ports.Tunnel()
	if len(cs) == 0 || tunnel == 0 {
		return
	}
	before := len(w.peers.told)
	w.siblings(port)
	for _, to := range w.peers.told[before:] {
		w.tellConns(tunnel, to, cs, sum)
	}
}

// noteSiblings lists the ports by which the packet at hand leaves that have siblings, and remembers those of other hosts:
// their flows tell only the tunnel's key.
func (w *Worker) noteSiblings() []uuid.UUID {
	p := &w.peers
	p.exits = p.exits[:0]
	for i := range w.sim.Actions {
		a := &w.sim.Actions[i]
		if a.Op != action.Forward {
			continue
		}
		v := w.snapshot.Port(a.VPort)
		if v == nil || len(v.Siblings) == 0 {
			continue
		}
		p.exits = append(p.exits, v.ID)
		if _, _, key, ok := w.snapshot.Remote(v.ID); ok && p.far[key] != v.ID {
			if p.far == nil {
				p.far = map[uint32]uuid.UUID{}
			}
			p.far[key] = v.ID
		}
	}
	return p.exits
}

// concerned lists the hosts that are to know of a flow's connections, in w.peers.told.
func (w *Worker) concerned(e flow.Entry) []match.Addr {
	p := &w.peers
	p.told = p.told[:0]
	as := e.Actions()
	for i := range as {
		switch a := &as[i]; a.Op {
		case action.Tunnel:
			if !slices.Contains(p.told, a.Addr) {
				p.told = append(p.told, a.Addr)
			}
			w.siblings(p.far[a.Key])
		case action.Output:
			if id, ok := w.ports.Virtual(a.Port); ok {
				w.siblings(id)
			}
		}
	}
	if id, ok := w.ports.Virtual(e.Port()); ok {
		w.siblings(id)
	}
	return p.told
}

// connsOf appends the connections of a flow.
func (w *Worker) connsOf(e flow.Entry, to []replicate.Conn) []replicate.Conn {
	from := len(to)
	for _, t := range e.Kept() {
		if !t.Kind.IsConnection() && t.Kind != tag.Affinity {
			continue
		}
		c, s, ok := w.tables.GetConnection(t)
		if ok && !slices.ContainsFunc(to[from:], func(x replicate.Conn) bool { return x.Conn == c }) {
			to = append(to, replicate.Conn{Conn: c, State: s})
		}
	}
	return to
}

// refresh tells again of the connections of a flow that is in use, so that they live as long at other hosts as here.
func (w *Worker) refresh(e flow.Entry) {
	port := w.ports.Tunnel()
	if port == 0 {
		return
	}
	p := &w.peers
	if hosts := w.concerned(e); len(hosts) > 0 {
		p.fresh = w.connsOf(e, p.fresh[:0])
		k := e.Key()
		for _, to := range hosts {
			w.tellConns(port, to, p.fresh, k.ConnectionSum())
		}
		p.fresh = p.fresh[:0]
	}
}

// tellEnding tells that TCP ends in the direction of a flow, which the other hosts cannot see.
func (w *Worker) tellEnding(e flow.Entry, rst bool) {
	port := w.ports.Tunnel()
	hosts := w.concerned(e)
	if port == 0 || len(hosts) == 0 {
		return
	}
	p := &w.peers
	p.fresh = p.fresh[:0]
	for _, t := range e.Kept() {
		if !t.Kind.IsConnection() {
			continue
		}
		c, s, ok := w.tables.GetConnection(t)
		now := s | conntrack.FinReply
		if rst {
			now = s | conntrack.Reset
		} else if t.Tuple() == c.Orig {
			now = s | conntrack.FinOrig
		}
		if ok && now != s {
			w.freshConnection(c, now, false)
		}
	}
	k := e.Key()
	for _, to := range hosts {
		w.tellConns(port, to, p.fresh, k.ConnectionSum())
	}
	p.fresh = p.fresh[:0]
}

// tale is what one host is told at length, no faster than it acknowledges.
type tale struct {
	to      match.Addr
	conns   []replicate.Conn // to be told now
	seeking bool             // further ones are to be found in the flows,
	place   uint32           // from there on
	flight  int              // messages that are not acknowledged
	missed  int              // that nobody has acknowledged
	done    func(missed int)
}

const (
	taleWindow = 64  // messages that are not acknowledged
	taleTurn   = 16  // messages at a turn
	someFlows  = 256 // how many flows are looked through at a turn
)

// lost is called for a message that is given up; t may be nil.
func (t *tale) lost() {
	if t != nil {
		t.flight--
		t.missed++
	}
}

// tellOn goes on with what is told at length. more: it could do so at once.
func (w *Worker) tellOn() (more bool) {
	p := &w.peers
	if len(p.tales) == 0 {
		return false
	}
	port := w.ports.Tunnel()
	p.tales = slices.DeleteFunc(p.tales, func(t *tale) bool {
		w.seek(t)
		for sent := 0; sent < taleTurn && t.flight < taleWindow && len(t.conns) > 0 && port != 0; {
			n := min(len(t.conns), replicate.MaxConns)
			m := w.begin(t.to, replicate.Conns, p.next) // any worker will do
			for i := range t.conns[:n] {
				m.frame = replicate.AppendConn(m.frame, &t.conns[i])
			}
			replicate.SetCount(m.frame, n)
			t.conns = t.conns[n:]
			m.part = t
			t.flight++
			sent++
			w.sendMessage(port, m)
		}
		over := t.flight == 0 && len(t.conns) == 0 && !t.seeking || port == 0
		if over && t.done != nil {
			t.done(t.missed + len(t.conns))
		}
		more = more || !over && t.flight < taleWindow && (t.seeking || len(t.conns) > 0)
		return over
	})
	return more
}

// seek finds some more of what concerns the host of a tale, unless there is enough for this turn.
func (w *Worker) seek(t *tale) {
	if !t.seeking || len(t.conns) >= taleTurn*replicate.MaxConns {
		return
	}
	t.place = w.flows.Some(t.place, someFlows, func(e flow.Entry) {
		if e.Kind() == flow.Stateful && slices.Contains(w.concerned(e), t.to) {
			t.conns = w.connsOf(e, t.conns)
		}
	})
	t.seeking = t.place != 0
}

// TellHost tells a host that has begun anew what concerns it. Call it through Do.
func (w *Worker) TellHost(to match.Addr) {
	w.addTale(&tale{to: to, seeking: true})
}

// Tell tells a host of connections. done is called on the worker's goroutine, with how many messages the host has not acknowledged.
// Call it through Do.
func (w *Worker) Tell(to match.Addr, cs []replicate.Conn, done func(missed int)) {
	w.addTale(&tale{to: to, conns: cs, done: done})
}

// addTale begins a tale at the end of this turn, which does not wait for a miss first: a port that moves is at no host meanwhile.
func (w *Worker) addTale(t *tale) {
	w.peers.tales = append(w.peers.tales, t)
	w.busy = true
}

// SomeConnectionsOf looks through some of the flows, from a place on which is 0 at first, for those of what comes in by a datapath port. It calls
// conn for their connections, in the direction of the flow's tags, and addr for the addresses from which that is sent. next is where to go on; 0: that
// was all. Call it through Do.
func (w *Worker) SomeConnectionsOf(no, from uint32, conn func(tag.Tag), addr func(match.Addr)) (next uint32) {
	return w.flows.Some(from, someFlows, func(e flow.Entry) {
		if e.Port() != no {
			return
		}
		for _, t := range e.Kept() {
			if t.Kind.IsConnection() || t.Kind == tag.Affinity {
				conn(t)
			}
		}
		if k := e.Key(); e.Mask()&match.Src != 0 && k.Src != (match.Addr{}) {
			addr(k.Src)
		}
	})
}

// busyIdle is for how long a worker sleeps while messages are under way.
const busyIdle = 20 * time.Millisecond

// patience is for how long the worker may wait for a miss.
func (w *Worker) patience() time.Duration {
	if p := &w.peers; p.first != p.next || len(p.tales) > 0 || len(p.early.list) > 0 {
		return min(w.cfg.Idle, busyIdle)
	}
	return w.cfg.Idle
}
