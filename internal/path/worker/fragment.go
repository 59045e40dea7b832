package worker

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/fragment"
)

// firstFragment remembers what the later fragments of the datagram do not say, and wakes those that came before it.
func (w *Worker) firstFragment(v *packet.View, vport uuid.UUID) {
	if v.Key.Frag != match.FragFirst {
		return
	}
	t := sim.Datagram(vport, v)
	if w.tables.RememberFragment(t, fragment.First{SrcPort: v.Key.SrcPort, DstPort: v.Key.DstPort, TCPFlags: v.TCPFlags()}) {
		w.publish(append(w.changed[:0], t))
	}
}

// touch keeps the connections of a fragment, for which there is no flow that would.
func (w *Worker) touch(k *match.Key) {
	if k.Frag == match.FragNone || w.sim.Result != sim.ResultForward {
		return
	}
	for i := range w.sim.Tags {
		t := &w.sim.Tags[i]
		if !w.holds(k, t) {
			continue
		}
		if handle, ok := w.tables.Hold(t); ok {
			w.tables.Release(t, handle)
		}
	}
}
