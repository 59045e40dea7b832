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

// rekey has other hosts reach a port by the key that it has come to have: the port of health checks has another one when the first of a
// router's load balancers is another. The caller holds mu.
func (p *ports) rekey(vport uuid.UUID) {
	b, bound := p.bound[vport]
	old, expected := p.expected[vport]
	if bound {
		old = b.key
	}
	key := p.key(vport)
	if key == 0 || key == old || !bound && !expected {
		return
	}
	no := b.No
	if bound {
		b.key = key
		p.bound[vport] = b
	}
	if expected { // what comes for it waits, or follows it
		p.expected[vport] = key
		if no = 0; p.tunnel != nil {
			no = p.tunnel.No
		}
		if t := p.table.Load(); t.Expects(vport) {
			p.publish(t.WithExpected(vport, key), func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
		}
	}
	p.lead(vport, key, no)
	p.lead(vport, old, 0)
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
