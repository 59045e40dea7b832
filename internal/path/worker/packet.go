package worker

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// The packet's way. Stages 1 and 2 are behind it when it gets here, 8 is left to
// the end of the batch (emit.go).
//
//	1 datapath  the packet missed; the kernel took one token from its port and put it on the ring
//	2 upcall    taken off the ring, in fair order between ports
//	3 flow      an earlier packet may already have decided this flow
//	4 prep      where did it enter the virtual network; is the same packet already being simulated
//	5 sim       bridges and routers decide; may answer "not yet": park
//	6 xlate     virtual ports become datapath ports
//	7 worker    commit learnt state, remember the flow and what it depends on; of a new connection, that of the answers too
//	8 datapath  install the flow, execute the packet, give the token back

// packet takes one miss through stages 3 to 7. It reports whether the miss was kept: parked or held
// back, to come again through here.
func (w *Worker) packet(m *datapath.Miss) (kept bool) {
	if w.heard(m) {
		return false
	}
	if m.Key.TunKey != 0 {
		return w.arrived(m)
	}
	v, bad := packet.Parse(m.Frame, m.Key.InPort)
	if bad != drop.None {
		w.drop(bad)
		return false
	}
	v.Key = m.Key
	if w.lookup(m, &v) {
		return false
	}
	vport, kept, ok := w.prepare(m)
	if !ok {
		return kept
	}
	w.firstFragment(&v, vport)
	d, why := w.settle(&v, vport, m.GSO)
	switch {
	case why != drop.None:
		w.drop(why)
		return false
	case d.result == sim.ResultNotYet:
		return w.park(m, vport)
	case d.reason != drop.None && w.early(m, &v, d.reason):
		return true
	case d.reason == drop.Inactive && w.expected() != uuid.Nil:
		return w.keep(m, w.expected())
	}
	w.count(m, vport)
	w.commit(m, d)
	w.tellPeers(&m.Key, vport, d.actions)
	w.finish(m, &v, d)
	if !w.generate(m.Key.InPort) {
		w.expect(m, d)
	}
	return false
}

// lookup is stage 3: the copy of the datapath table answers a packet that raced the
// install of its own flow; a wildcard hit installs the exact flow. A packet whose TTL the
// actions would use up, or that is longer than those they were decided for, is for the simulation alone.
func (w *Worker) lookup(m *datapath.Miss, v *packet.View) (done bool) {
	if m.Reason != datapath.MissNoFlow {
		return false
	}
	e, exact := w.flows.Exact(&m.Key)
	if !exact {
		e, done = w.flows.Wildcard(&m.Key)
		if !done {
			w.explainMiss()
			return false
		}
	}
	if !within(e.Actions(), v, m.GSO) {
		return false
	}
	w.explainHit(exact, e)
	if !exact {
		w.flows.Install(&m.Key, e)
	}
	w.execute(m, e.Actions(), drop.FlowDrop)
	return true
}

// within reports whether a packet's TTL and length are within what the actions are for.
func within(as action.Physical, v *packet.View, gso packet.GSO) bool {
	ttl, most := as.TTLCost(), as.MaxLen()
	return (ttl == 0 || v.TTL > ttl) && (most == 0 || v.WireLen(gso) <= int(most))
}

// prepare is stage 4: datapath port to virtual port, and duplicates held back. When ok is false the
// packet goes no further now.
func (w *Worker) prepare(m *datapath.Miss) (vport uuid.UUID, kept, ok bool) {
	vport, ok = w.ports.Virtual(m.Key.InPort)
	if !ok {
		w.drop(drop.NotBound)
		return vport, false, false
	}
	if w.hold(m) {
		return vport, true, false
	}
	w.explainPrep(m.Key.InPort, vport)
	return vport, false, true
}

// decision is what stages 5 and 6 make of a packet. Its actions are the worker's memory, valid
// until the next one.
type decision struct {
	result  sim.Result
	reason  drop.Reason // for drops
	actions action.Physical
}

// decide is stages 5 and 6. It has no effect outside the worker's scratch memory:
// packets, adopted flows and traces all take this way.
func (w *Worker) decide(v *packet.View, vport uuid.UUID, gso packet.GSO) decision {
	c := &w.sim
	c.Reset()
	c.Topo, c.State, c.Packet, c.GSO, c.Trace, c.Hint = w.snapshot, w.tables, *v, gso, w.trace, w.hint
	sim.Simulate(c, vport)
	return w.translate()
}

// translate is stage 6 for whatever the simulation has just decided.
func (w *Worker) translate() decision {
	c := &w.sim
	d := decision{result: c.Result, reason: c.Reason}
	if d.result == sim.ResultForward {
		w.actions, c.Tags, d.reason = w.ports.Translate(w.actions[:0], c.Tags, c.Actions, w.snapshot)
		if d.reason != drop.None {
			d.result = sim.ResultDrop
		} else {
			d.actions = w.actions
		}
	}
	w.explainDecision(d)
	return d
}

// park keeps a packet until what it waits for has come.
func (w *Worker) park(m *datapath.Miss, vport uuid.UUID) (kept bool) {
	wait, lease := w.sim.Wait, w.sim.Lease
	if !w.await(wait, lease, vport) {
		w.drop(drop.TooManyWaits)
		return false
	}
	if !w.lot.Park(m, wait, w.now) {
		w.drop(drop.ParkOverflow)
		return false
	}
	w.counts.Waiting++
	w.explainParked(wait)
	return true
}

// commit is stage 7, after settle: the flow, with what it depends on.
func (w *Worker) commit(m *datapath.Miss, d decision) {
	if d.result == sim.ResultConsumed || w.sim.UserSpace {
		w.touch(&m.Key)
		w.explainNoFlow()
		return
	}
	w.explainAdd(&m.Key, d)
	w.note(w.flows.Add(&m.Key, w.sim.Mask, d.actions, w.sim.Tags, w.kindOf(d.result)))
}

// kindOf is the class of the flow for what the simulation has decided.
func (w *Worker) kindOf(r sim.Result) flow.Kind {
	switch r {
	case sim.ResultForward:
		if w.sim.Stateful {
			return flow.Stateful
		}
		return flow.Normal
	case sim.ResultErrorDrop:
		return flow.Error
	}
	return flow.Drop
}

// finish ends the packet: executed, dropped or consumed.
func (w *Worker) finish(m *datapath.Miss, v *packet.View, d decision) {
	switch d.result {
	case sim.ResultForward:
		w.requote(m.Frame)
		w.execute(m, d.actions, d.reason)
	case sim.ResultConsumed:
		w.consumed()
	default:
		w.drop(d.reason)
	}
}
