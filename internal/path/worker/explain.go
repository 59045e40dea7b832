package worker

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// What the stages write into the tree of a traced packet, in the order of
// packet.go. Each returns at once for a packet that is not traced. Stage names are the folders'.

func (w *Worker) explainUpcall(m *datapath.Miss) {
	why := "no flow matches: a miss"
	switch m.Reason {
	case datapath.MissTTL:
		why = "the flow would use up the TTL: a miss"
	case datapath.MissMTU:
		why = "the flow is for shorter packets: a miss"
	}
	w.trace.Add("datapath", dpPort(m.Key.InPort), "%s; one token taken, %d bytes put on the ring", why, len(m.Frame))
	w.trace.Add("upcall", "queue", "taken off the ring when it was the port's turn")
}

func (w *Worker) explainHit(exact bool, e flow.Entry) {
	if w.trace == nil {
		return
	}
	if exact {
		w.trace.Add("flow", "datapath-flow copy", "an earlier packet has installed this flow: no simulation")
		return
	}
	w.trace.Add("flow", "datapath-flow copy", "no match")
	w.trace.Add("flow", "wildcard table", "match on %s: no simulation", e.Mask())
	w.trace.Add("flow", "install", "exact flow with the entry's actions: %s", e.Actions())
}

func (w *Worker) explainMiss() {
	if w.trace == nil {
		return
	}
	w.trace.Add("flow", "datapath-flow copy", "no match")
	w.trace.Add("flow", "wildcard table", "no match")
}

func (w *Worker) explainHeld() {
	if w.trace == nil {
		return
	}
	w.trace.Add("prep", "duplicates", "the same packet is being simulated: held back")
}

func (w *Worker) explainEarly() {
	if w.trace != nil {
		w.trace.Add("prep", "early", "it belongs to no connection that is known here: another host may be about to tell of it")
	}
}

func (w *Worker) explainPrep(no uint32, vport uuid.UUID) {
	if w.trace == nil {
		return
	}
	w.trace.Add("prep", "duplicates", "nobody is simulating the same packet")
	w.trace.Add("prep", dpPort(no), "is virtual port %s", w.portName(vport))
}

// explainDecision closes what the simulation has written itself.
func (w *Worker) explainDecision(d decision) {
	if w.trace == nil {
		return
	}
	c := &w.sim
	n := w.trace.Add("sim", "result", "%s", c.Result)
	switch c.Result {
	case sim.ResultForward:
		n.Text += ": " + w.virtualText(c.Actions)
		if d.result == sim.ResultForward {
			w.trace.Add("xlate", "actions", "%s", d.actions)
		} else {
			w.trace.Add("xlate", "actions", "drop: %s", d.reason.Meaning())
		}
	case sim.ResultDrop, sim.ResultErrorDrop:
		n.Text += ": " + d.reason.Meaning()
	}
}

func (w *Worker) explainParked(wait tag.Tag) {
	if w.trace == nil {
		return
	}
	what := fmt.Sprintf("the neighbour %s answers", wait.Addr)
	switch {
	case len(w.sim.Need) > 0:
		what = "what is not known here of the network is loaded"
	case wait.Kind == tag.Binding:
		what = fmt.Sprintf("port %s has moved", w.portName(wait.ID))
	case wait.Kind == tag.Ports:
		what = fmt.Sprintf("ports of %s are leased", wait.Addr)
	case wait.Kind == tag.Fragment:
		what = fmt.Sprintf("the first fragment from %s comes", wait.Addr)
	}
	w.trace.Add("prep", "park", "until %s; the token goes back", what)
}

func (w *Worker) explainLearnt(ts []tag.Tag) {
	if w.trace == nil {
		return
	}
	for _, t := range ts {
		w.trace.Add("worker", "commit", "learnt, and what depended on it invalidated: %s", t)
	}
}

func (w *Worker) explainAdd(k *match.Key, d decision) {
	if w.trace == nil {
		return
	}
	w.trace.Add("worker", "remember", "wildcard entry on %s, depends on %d things", w.sim.Mask, len(w.sim.Tags))
	w.trace.Add("datapath", "install", "%s -> %s", k.String(), d.actions)
}

func (w *Worker) explainExpect(k *match.Key, d decision) {
	if w.trace == nil {
		return
	}
	w.trace.Add("worker", "expect", "answers: %s -> %s", k.String(), d.actions)
}

func (w *Worker) explainNoFlow() {
	if w.trace == nil {
		return
	}
	w.trace.Add("worker", "remember", "no flow is installed")
}

func (w *Worker) explainExecute(as action.Physical) {
	if w.trace == nil {
		return
	}
	w.trace.Add("datapath", "execute", "%s", as)
}

func (w *Worker) explainDrop(r drop.Reason) {
	if w.trace == nil {
		return
	}
	w.trace.Add(r.Stage(), "drop", "%s: %s", r, r.Meaning())
}

// explainMade starts a subtree for a packet that a device made.
func (w *Worker) explainMade(parent *trace.Node, port uuid.UUID, frame []byte) {
	if parent == nil {
		return
	}
	w.trace = parent.Add("", "generated packet", "%s, starts at the egress of %s", frameText(frame), w.portName(port))
}

func dpPort(no uint32) string { return fmt.Sprintf("datapath port %d", no) }

func (w *Worker) portName(id uuid.UUID) string {
	if p := w.snapshot.Port(id); p != nil && p.Name != "" {
		return p.Name
	}
	return id.String()
}

func (w *Worker) virtualText(as action.Virtual) string {
	s := ""
	for i, a := range as {
		if i > 0 {
			s += ", "
		}
		if a.Op == action.Forward {
			s += "Forward(" + w.portName(a.VPort) + ")"
			continue
		}
		s += a.String()
	}
	return s
}
