package agent

import (
	"context"

	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// newMirror makes the mirror of what this host needs of the network.
func (a *Agent) newMirror(s *conf.Settings) *mirror.Mirror {
	m := mirror.NewPart(a.host.ID)
	m.Log, m.Clock, m.InUse = a.logs.For(logTopology), a.clock, a.inUse
	m.Idle, m.Compare = s.Topology.IdleTimeout, s.Topology.CompareInterval
	return m
}

// inUse lists those of some parts of the network on which flows depend, and the ports on whose links addresses are being asked for: a flow waits for each of them.
func (a *Agent) inUse(ts []view.Thing) (used []view.Thing) {
	for _, w := range a.workers {
		err := a.call(w, context.Background(), func() {
			ts = w.Unused(ts, func(t view.Thing) { used = append(used, t) })
		})
		if err != nil {
			return append(used, ts...) // the worker has ended
		}
	}
	asked := a.tables.Asked() // last: packets have gone on meanwhile
	for _, t := range ts {
		if _, asks := asked[t.ID]; asks && t.Kind == view.ThingPort {
			used = append(used, t)
		}
	}
	return used
}
