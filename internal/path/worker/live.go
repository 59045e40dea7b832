package worker

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Watcher sees real packets go through the stages.
type Watcher struct {
	// Port is where they enter; uuid.Nil: anywhere.
	Port uuid.UUID
	// Seen gets each finished tree, on the worker's goroutine: it must not block. A
	// packet that was parked has one tree for each time it went through. When it returns false the watcher is removed.
	Seen func(*trace.Node) bool
}

// Watch adds a watcher; Unwatch removes it. Call both through Do.
func (w *Worker) Watch(l *Watcher) { w.lives = append(w.lives, l) }

// Unwatch removes a watcher that may already be gone.
func (w *Worker) Unwatch(l *Watcher) {
	w.lives = slices.DeleteFunc(w.lives, func(x *Watcher) bool { return x == l })
}

// beginTrace starts the tree of a packet that somebody watches.
func (w *Worker) beginTrace(m *datapath.Miss, again string) {
	if len(w.lives) == 0 {
		return
	}
	w.traced, _ = w.ports.Virtual(m.Key.InPort)
	if !slices.ContainsFunc(w.lives, w.watches) {
		return
	}
	w.trace = &trace.Node{What: "packet" + again, Text: frameText(m.Frame)}
	if again == "" {
		w.explainUpcall(m)
	}
}

func (w *Worker) watches(l *Watcher) bool { return l.Port == uuid.Nil || l.Port == w.traced }

func (w *Worker) endTrace() {
	t := w.trace
	if t == nil {
		return
	}
	w.trace = nil
	w.lives = slices.DeleteFunc(w.lives, func(l *Watcher) bool { return w.watches(l) && !l.Seen(t) })
}

func frameText(frame []byte) string {
	v, bad := packet.Parse(frame, 0)
	if bad != drop.None {
		return bad.Meaning()
	}
	return v.Key.Text(match.All &^ match.InPort)
}

// Answer is what would become of a packet.
type Answer struct {
	Tree      *trace.Node
	Result    sim.Result
	Reason    drop.Reason // for drops
	Actions   string      // physical
	Key       match.Key
	Mask      match.Mask
	Tags      []tag.Tag
	Need      []view.Thing // for a result that waits for some of the network that is not known here
	UserSpace bool         // no flow would be installed
}

// Explain answers what would become of frame if it entered at a virtual port: the same stages and the
// same engine, but nothing is sent, learnt, installed or counted. The tables are not asked for an
// answer, only shown: the packet is always simulated. Call it through Do.
func (w *Worker) Explain(port uuid.UUID, frame []byte) (a Answer) {
	no, _ := w.ports.Local(port)
	v, bad := packet.Parse(frame, no)
	root := &trace.Node{What: "packet", Text: frameText(frame)}
	if bad != drop.None {
		root.Add(bad.Stage(), "drop", "%s: %s", bad, bad.Meaning())
		return Answer{Tree: root, Result: sim.ResultDrop, Reason: bad}
	}
	w.trace = root
	defer func() { w.trace = nil }()
	defer w.guardedAnswer(&a, root, frame, no)
	root.Add("datapath", dpPort(no), "no packet is sent: this is what a miss would meet")
	if e, ok := w.flows.Peek(&v.Key); ok {
		root.Add("flow", "tables", "an entry on %s would answer: %s", e.Mask(), e.Actions())
	} else {
		w.explainMiss()
	}
	w.explainPrep(no, port)
	d := w.decide(&v, port, packet.GSO{})
	c := &w.sim
	a = Answer{
		Tree: root, Result: d.result, Reason: d.reason, Actions: d.actions.String(),
		Key: v.Key, Mask: c.Mask, Tags: slices.Clone(c.Tags), Need: slices.Clone(c.Need), UserSpace: c.UserSpace || d.result == sim.ResultConsumed,
	}
	w.explainGenerated()
	return a
}

// explainGenerated simulates, without effect, what the simulation at hand has made.
func (w *Worker) explainGenerated() {
	w.collect(0)
	for ; w.made.done < len(w.made.list); w.made.done++ {
		p := w.made.list[w.made.done]
		if p.depth > maxDepth {
			continue
		}
		root := w.trace
		w.explainMade(root, p.port, p.frame)
		if v, bad := packet.Parse(p.frame, 0); bad == drop.None {
			w.simulateEgress(&v, p.port)
		}
		w.trace = root
		w.collect(p.depth + 1)
	}
	w.made.reset()
}
