package worker

import (
	"runtime/debug"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// A packet must not be able to end the agent, whatever bug it finds in it: each goes through the stages under a guard, which costs
// nanoseconds. What had not ended when the panic came is dropped as drop.Internal; its token goes back with the batch.

// Fault is a panic that one packet, or one flow that was decided anew, has caused.
type Fault struct {
	Panic any
	Stack []byte
	Frame []byte // a copy; of a flow, of a packet like its own
	Port  uint32 // datapath port of ingress; 0: a device made the packet
	More  uint64 // faults since the last one that was told
}

// faultEvery is how often Deps.Fault is told at most: whoever can cause one fault can cause a hundred thousand a second.
const faultEvery = int64(time.Second)

// faults are those of a worker.
type faults struct {
	told int64 // when; 0: never
	more uint64
}

// guarded is packet, with the guard.
func (w *Worker) guarded(m *datapath.Miss) (kept bool) {
	waiting, tree := w.counts.Waiting, w.trace
	defer func() {
		if p := recover(); p != nil {
			w.trace, w.ingress = tree, m.Key.InPort
			if w.counts.In > w.over()+uint64(w.counts.Waiting) {
				w.drop(drop.Internal)
			}
			kept = w.counts.Waiting > waiting
			w.fault(p, m.Frame, m.Key.InPort)
		}
	}()
	return w.packet(m)
}

// guardedMade is simulateMade, with the guard.
func (w *Worker) guardedMade(p madePacket) {
	ended, tree := w.over(), w.trace
	defer func() {
		if x := recover(); x != nil {
			w.trace = tree
			if w.over() == ended {
				w.drop(drop.Internal)
			}
			w.fault(x, p.frame, 0)
		}
	}()
	w.simulateMade(p)
}

// guardedFlow calls f, which decides a flow anew; ok is false when it panicked.
func (w *Worker) guardedFlow(fl *datapath.FlowInfo, f func(*datapath.FlowInfo) sim.Result) (r sim.Result, ok bool) {
	defer func() {
		if x := recover(); x != nil {
			w.hint, r, ok = nil, sim.ResultConsumed, false
			w.fault(x, w.frame, fl.Key.InPort)
		}
	}()
	return f(fl), true
}

// guardedExpect is expectFlow, with the guard.
func (w *Worker) guardedExpect(k *match.Key, by uint32) {
	tree := w.trace
	defer func() {
		if x := recover(); x != nil {
			w.trace = tree
			w.fault(x, w.frame, k.InPort)
		}
	}()
	w.expectFlow(k, by)
}

// guardedAnswer makes an answer of what went wrong while the worker explained.
func (w *Worker) guardedAnswer(a *Answer, root *trace.Node, frame []byte, no uint32) {
	if x := recover(); x != nil {
		root.Add(drop.Internal.Stage(), "drop", "%s: %s: %v", drop.Internal, drop.Internal.Meaning(), x)
		*a = Answer{Tree: root, Result: sim.ResultDrop, Reason: drop.Internal}
		w.made.reset()
		w.fault(x, frame, no)
	}
}

// over is how many packets have ended, those included that only wait for their batch to leave.
func (w *Worker) over() uint64 {
	n := w.counts.Executed + w.counts.Consumed + uint64(len(w.batch.execs))
	for _, d := range w.counts.Dropped {
		n += d
	}
	return n
}

func (w *Worker) fault(p any, frame []byte, port uint32) {
	w.counts.Faults++
	if w.onFault == nil || w.faults.told != 0 && w.now-w.faults.told < faultEvery {
		w.faults.more++
		return
	}
	w.onFault(Fault{Panic: p, Stack: debug.Stack(), Frame: slices.Clone(frame[:min(len(frame), packet.EthLen+packet.VLANLen+1500)]), Port: port, More: w.faults.more})
	w.faults = faults{told: max(w.now, 1)}
}
