package worker

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// maxConflicts is how often a packet is simulated anew because another worker took what it was to have.
const maxConflicts = 4

// settle decides, and commits what was learnt and the connections that the decision begins: state first, so that the flow's own
// tags are not invalidated by it. The simulation only proposes, so that a trace has no effect; when somebody else was faster
// the packet is simulated again. A packet that ends with an answer may begin a connection, too: the answer has to find
// back. why is other than None when it must be dropped for what cannot be committed.
func (w *Worker) settle(v *packet.View, vport uuid.UUID, gso packet.GSO) (d decision, why drop.Reason) {
	w.peers.fresh, w.peers.members, w.begun = w.peers.fresh[:0], w.peers.members[:0], false
	for range maxConflicts {
		var known bool
		if d, known = w.recalled(v, vport, gso); !known {
			if d = w.decide(v, vport, gso); d.result == sim.ResultNotYet {
				return d, drop.None
			}
			w.remember(v, vport, &d)
		}
		if why = w.learn(); d.result != sim.ResultForward && d.result != sim.ResultConsumed {
			why = drop.None // it ends for its own reason
		}
		if why == drop.None && w.selfTaught() {
			continue
		}
		if why == drop.None && (d.result == sim.ResultForward || len(w.sim.Generated) > 0) {
			why = w.connect()
		}
		if why != drop.NatConflict {
			return d, why
		}
	}
	return d, why
}

// connect commits the connections that the simulation at hand has proposed: all workers see them before
// its flow is installed. NatConflict: another connection has the same tuple meanwhile.
func (w *Worker) connect() drop.Reason {
	w.changed, w.newConns = w.changed[:0], w.newConns[:0]
	why := drop.None
	for left := w.sim.Learn; len(left) > 0 && why == drop.None; {
		l := &left[0]
		if left = left[1:]; l.Kind != sim.LearnConnection {
			continue
		}
		if len(left) > 0 && together(l, &left[0]) {
			var done bool
			if done, why = w.connectBoth(l, &left[0]); done {
				left = left[1:]
				continue
			}
		}
		if l.Was != (match.Tuple{}) {
			w.changed = w.tables.EndConnection(tag.Of(l.Conn, l.Device, &l.Orig), l.Was, w.changed)
		}
		c := connOf(l)
		switch w.tables.AddConnection(c) {
		case conntrack.Added:
			w.added(l, &c, 0)
		case conntrack.Conflict:
			why = drop.NatConflict
		case conntrack.Full:
			why = drop.TooManyConns
		}
	}
	w.publish(w.changed)
	return why
}

// connectBoth commits what together has said belongs together. Not done: it has to be one by one.
func (w *Worker) connectBoth(l, next *sim.Learn) (done bool, why drop.Reason) {
	c, other := connOf(l), connOf(next)
	switch hc, ho, v := w.tables.AddBoth(&c, &other); v {
	case conntrack.Added:
		w.added(l, &c, hc)
		w.added(next, &other, ho)
		return true, drop.None
	case conntrack.Full:
		return true, drop.TooManyConns
	}
	return false, drop.None
}

func connOf(l *sim.Learn) conntrack.Conn {
	return conntrack.Conn{Kind: l.Conn, Device: l.Device, Orig: l.Orig, Reply: l.Reply, Owner: l.Port, Idle: time.Duration(l.Idle)}
}

// together reports whether what a packet begins is one connection at two devices, which do not translate it: at the ports by which it goes in and out.
func together(a, b *sim.Learn) bool {
	return b.Kind == sim.LearnConnection && a.Conn == tag.Connection && b.Conn == tag.Connection && a.Device != b.Device &&
		a.Orig == b.Orig && a.Reply == b.Reply && a.Reply == a.Orig.Reverse() && a.Was == (match.Tuple{}) && b.Was == (match.Tuple{})
}

// newConn is a connection that has just begun.
type newConn struct {
	tag    tag.Tag
	handle uint64 // of Tables.HoldConnection; 0: not known
}

// added notes a connection that has begun.
func (w *Worker) added(l *sim.Learn, c *conntrack.Conn, handle uint64) {
	if moved := l.Was != (match.Tuple{}); l.Conn.IsConnection() {
		w.freshConnection(*c, 0, moved)
	} else {
		w.freshMember(*c, moved)
	}
	about := tag.Of(l.Conn, l.Device, &l.Orig)
	w.begun, w.newConns = true, append(w.newConns, newConn{about, handle})
	if w.changed = append(w.changed, about); l.Reply != l.Orig.Reverse() { // else both directions have one hash
		w.changed = append(w.changed, tag.Of(l.Conn, l.Device, &l.Reply))
	}
}

// holdOn implements flow.Config.Hold. What has just begun need not be looked for.
func (w *Worker) holdOn(t *tag.Tag) (handle uint64, ok bool) {
	for i := range w.newConns {
		if b := &w.newConns[i]; b.tag == *t && b.handle != 0 && w.tables.HoldConnection(b.handle) {
			return b.handle, true
		}
	}
	return w.tables.Hold(t)
}

// answered commits that connections were answered.
func (w *Worker) answered() {
	for i := range w.sim.Learn {
		if l := &w.sim.Learn[i]; l.Kind == sim.LearnReplied {
			w.tables.ConnectionReplied(tag.Of(l.Conn, l.Device, &l.Orig))
			w.answeredConnection(l)
		}
	}
}

// requote finishes an ICMP error: what it quotes was translated, too.
func (w *Worker) requote(frame []byte) {
	if w.sim.Quoted.Proto != 0 {
		packet.RewriteQuoted(frame, &w.sim.Quoted)
	}
}

// ended follows TCP to its end: a flow that has seen FIN or RST and is idle since.
func (w *Worker) ended(f *datapath.FlowInfo) {
	const fin, rst = 1, 4
	if f.TCPFlags&(fin|rst) == 0 || f.Idle < w.cfg.Linger {
		return
	}
	e, ok := w.flows.Exact(&f.Key)
	if !ok || len(e.Kept()) == 0 {
		return
	}
	kept := e.Kept()
	w.tellEnding(e, f.TCPFlags&rst != 0)
	if changed := w.tables.TCPEnded(kept, f.TCPFlags&rst != 0); len(changed) > 0 {
		w.publish(changed)
	}
}

// Relearn takes from flows that an earlier agent has left which connections there were: those with which each
// flow is decided as it was. It is to be called for all flows, on all workers, before any is handed to Adopt: an answer
// belongs to a connection that another worker learns. Returned are those that must wait, as Adopt's.
// Call it through Do.
func (w *Worker) Relearn(fs []datapath.FlowInfo) (undecided []datapath.FlowInfo) {
	w.now = w.clock.Now()
	for i := range fs {
		f := &fs[i]
		if r, _ := w.guardedFlow(f, w.relearnFlow); r == sim.ResultNotYet {
			again := *f
			again.Actions = slices.Clone(f.Actions)
			undecided = append(undecided, again)
		}
	}
	return undecided
}

// relearnFlow does so for one flow; ResultNotYet: it must wait.
func (w *Worker) relearnFlow(f *datapath.FlowInfo) sim.Result {
	w.relearn(&f.Key)
	vport, ok := w.ports.Virtual(f.Key.InPort)
	if !ok {
		return sim.ResultConsumed
	}
	v, ok := w.specimen(&f.Key)
	if !ok {
		return sim.ResultConsumed
	}
	w.hint = sim.Hint(f.Actions)
	d := w.decide(&v, vport, packet.GSO{})
	w.hint = nil
	switch {
	case d.result == sim.ResultNotYet && !w.awaits(f, vport):
		return sim.ResultConsumed
	case d.result == sim.ResultForward && slices.Equal(d.actions, f.Actions):
		// A conflict means that the connection is there, or is another's: Adopt will see.
		_ = w.connect()
		w.peers.fresh = w.peers.fresh[:0] // the other hosts know, or ask
	}
	return d.result
}
