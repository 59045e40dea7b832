package mirror

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// hosts continues next with the other hosts: their part of s and of the tags.
func (m *Mirror) hosts(s, old *view.Snapshot, d dirty) []tag.Tag {
	if _, self := d.hosts[m.host]; self { // in other zones, perhaps, than before
		for o := range m.graph.All(model.KindHost) {
			d.hosts[o.GetMeta().ID] = struct{}{}
		}
	}
	b := builder{m.graph}
	var tags []tag.Tag
	for _, id := range sorted(d.hosts) {
		was, is := old.Hosts[id], b.host(id, m.host)
		if was == is || was != nil && is != nil && *was == *is {
			continue
		}
		s.Hosts = with(s.Hosts, old.Hosts, id, is)
		tags = append(tags, tag.Tag{Kind: tag.Host, ID: id})
	}
	return tags
}

// host is a host as seen from self; nil for self.
func (b builder) host(id, self uuid.UUID) *view.Host {
	h, ok := get[*model.Host](b.graph, id)
	if !ok || id == self {
		return nil
	}
	v := &view.Host{ID: id, Name: h.Name}
	if me, ok := get[*model.Host](b.graph, self); ok {
		if end, ok := h.TunnelEnd(me); ok {
			v.Tunnel = match.AddrFrom(end.Address)
		}
	}
	return v
}
