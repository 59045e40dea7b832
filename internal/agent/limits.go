package agent

import (
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// rates are the bandwidth limits of a port, as the topology has them now.
func (a *Agent) rates(vport uuid.UUID) (r datapath.Rates) {
	if p := a.mirror.Snapshot().Port(vport); p != nil {
		r.Egress, r.Ingress = rate(p.FromVM), rate(p.ToVM)
	}
	return r
}

func rate(r view.Rate) datapath.Rate { return datapath.Rate(r) }

// follow gives ports what the topology has come to have for them: limits, and the key by which other hosts reach them.
func (p *ports) follow(changed []tag.Tag) {
	if !slices.ContainsFunc(changed, func(t tag.Tag) bool { return t.Kind == tag.Port }) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range changed {
		if t.Kind != tag.Port {
			continue
		}
		if b, ok := p.bound[t.ID]; ok && b.rates != p.rates(t.ID) {
			p.bound[t.ID] = p.limit(t.ID, b)
		}
		p.rekey(t.ID)
	}
}

// limit sets the limits of a port. A datapath that has none says so once for each change.
func (p *ports) limit(vport uuid.UUID, b boundPort) boundPort {
	b.rates = p.rates(vport)
	err := p.dp.SetRates(b.No, b.rates)
	switch {
	case errors.Is(err, datapath.ErrRates):
		p.log.Warn("bandwidth is not limited: this datapath cannot", "port", vport, "error", err)
	case err != nil:
		p.log.Warn("bandwidth limits cannot be set", "port", vport, "error", err)
	}
	return b
}
