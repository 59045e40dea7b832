package mirror

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/live"
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
	b := m.builder()
	var tags []tag.Tag
	for _, id := range sorted(d.hosts) {
		was, is := old.Hosts[id], b.host(id)
		if was == is || was != nil && is != nil && *was == *is {
			continue
		}
		s.Hosts = with(s.Hosts, old.Hosts, id, is)
		tags = append(tags, tag.Tag{Kind: tag.Host, ID: id})
	}
	return tags
}

// host is another host as seen from here; nil for this one.
func (b builder) host(id uuid.UUID) *view.Host {
	h, ok := get[*model.Host](b.graph, id)
	if !ok || id == b.self {
		return nil
	}
	v := &view.Host{ID: id, Name: h.Name, Dead: b.dead(id)}
	if me, ok := get[*model.Host](b.graph, b.self); ok {
		if end, ok := h.TunnelEnd(me); ok {
			v.End = match.AddrFrom(end.Address)
		}
	}
	if !v.Dead {
		v.Tunnel = v.End
	}
	return v
}

// SetHosts says which hosts are alive: the ports of dead ones are as if nothing were plugged in. It does not wait. Safe for concurrent use.
func (m *Mirror) SetHosts(h live.Hosts) {
	m.mu.Lock() // the last one stays
	defer m.mu.Unlock()
	select {
	case <-m.hostNews:
	default:
	}
	m.hostNews <- h
}

// Heard reports whether the snapshot is by what SetHosts has said, and not by what was kept. Safe for concurrent use.
func (m *Mirror) Heard() bool { return m.heard.Load() }

func (m *Mirror) takeHosts(h live.Hosts) {
	m.updateNews(m.setHosts(h))
	m.heard.Store(true)
}

// setHosts marks what a change of liveness concerns.
func (m *Mirror) setHosts(h live.Hosts) dirty {
	was, is := m.builder(), m.builder()
	is.live = h
	m.live = h
	d := newDirty()
	for o := range m.graph.All(model.KindHost) {
		id := o.GetMeta().ID
		if was.dead(id) == is.dead(id) {
			continue
		}
		d.hosts[id] = struct{}{}
		for b := range m.graph.ReferrersOf(model.Key{Kind: model.KindHost, ID: id}, model.KindBinding) {
			d.add(m.graph, b)
		}
	}
	return d
}

func (m *Mirror) builder() builder { return builder{m.graph, &m.health, m.host, m.live, m.part} }
