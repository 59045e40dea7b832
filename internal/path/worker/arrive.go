package worker

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// A port that moves is at neither host for a while. What is for it waits at either: at the one that had it, until the store says that it has gone, and then
// follows it; at the one that is to have it, until its interface is there. A sender that hears nothing would repeat itself only after some
// time, and then twice as late each time. The agent says which ports are expected (xlate.Ports).

// arrived takes a packet that has come out of a tunnel, for a port that is or was expected: the kernel hands on no others. It was decided where
// it entered.
func (w *Worker) arrived(m *datapath.Miss) (kept bool) {
	vport, ok := w.ports.Behind(m.Key.TunKey)
	if !ok {
		w.drop(drop.NotBound)
		return false
	}
	if w.ports.Expects(vport) {
		if w.hold(m) {
			return true
		}
		return w.keep(m, vport)
	}
	w.actions = w.actions[:0]
	if no, here := w.ports.Local(vport); here {
		w.actions = append(w.actions, action.Action{Op: action.Output, Port: no})
	} else if _, peer, key, ok := w.snapshot.Remote(vport); ok {
		w.actions = append(w.actions, action.Action{Op: action.Tunnel, Port: w.ports.Tunnel(), Addr: peer, Key: key})
	}
	w.execute(m, w.actions, drop.Inactive)
	return false
}

// expected is a port that the packet at hand would have gone to and that is on the way; Nil: there is none.
func (w *Worker) expected() uuid.UUID {
	for i := range w.sim.Actions {
		if a := &w.sim.Actions[i]; a.Op == action.Forward && w.ports.Expects(a.VPort) {
			return a.VPort
		}
	}
	return uuid.Nil
}

// keep parks a packet until a port is there, or is not expected any more.
func (w *Worker) keep(m *datapath.Miss, vport uuid.UUID) (kept bool) {
	wait := tag.Tag{Kind: tag.Binding, ID: vport}
	if !w.lot.Park(m, wait, w.now) {
		w.drop(drop.ParkOverflow)
		return false
	}
	w.counts.Waiting++
	w.explainParked(wait)
	return true
}
