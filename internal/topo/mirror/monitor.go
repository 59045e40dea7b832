package mirror

import (
	"cmp"
	"slices"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// mirror marks what the mirror's source is built from.
func (d dirty) mirror(g *model.Graph, m *model.Mirror) {
	switch source := m.Source(); source.Kind {
	case model.KindPort:
		if p, ok := get[*model.Port](g, source.ID); ok {
			d.port(p)
		}
	case model.KindBridge:
		d.bridges[source.ID] = struct{}{}
	case model.KindRouter:
		d.routers[source.ID] = struct{}{}
	}
}

// mirrors are those of a port, bridge or router, ordered by id; others refer to it as well.
func (b builder) mirrors(source model.Key) (list []view.Mirror) {
	for o := range b.graph.ReferrersOf(source, model.KindMirror) {
		m := o.(*model.Mirror)
		if m.Source() != source {
			continue
		}
		v := view.Mirror{ID: m.ID, Name: cmp.Or(m.Name, m.ID.String()), To: m.ToPortID, Match: view.NewCondition(&m.Match)}
		in, out := view.InAfterFilters, view.OutAfterFilters
		if m.BeforeFilters {
			in, out = view.InBeforeFilters, view.OutBeforeFilters
		}
		if m.Direction != model.MirrorOut {
			v.At |= in
		}
		if m.Direction != model.MirrorIn {
			v.At |= out
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b view.Mirror) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return list
}

// qos adds to v what the port's policy says.
func (b builder) qos(v *view.Port, p *model.Port) {
	q, ok := get[*model.QoSPolicy](b.graph, p.QoSPolicyID)
	if !ok {
		return
	}
	v.DSCP, v.FromVM, v.ToVM = q.DSCP, rate(q.Egress), rate(q.Ingress)
}

func rate(l model.BandwidthLimit) view.Rate {
	if l.MaxKbps == 0 {
		return view.Rate{}
	}
	return view.Rate{BitsPerSecond: 1000 * uint64(l.MaxKbps), BurstBits: 1000 * uint64(l.Burst())}
}
