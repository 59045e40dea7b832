package mirror

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// maxOwners bounds what other hosts have said and is not taken yet.
const maxOwners = 64

// owner is what another host says of a port.
type owner struct {
	port, host uuid.UUID
	revision   int64
}

// SetOwner takes a host's word for it that a port is its own, as of a revision of the store of which this one may not have heard: it is cut off from the store, and the port
// was taken from it. What is known at a later revision stays. It does not wait, and leaves out what comes too fast: it is said again. Safe for concurrent use.
func (m *Mirror) SetOwner(port, host uuid.UUID, revision int64) {
	select {
	case m.owners <- owner{port, host, revision}:
	default:
	}
}

// owned gives the binding the host, as the store will tell it. Its interface there is not known, and nobody's business here.
func (m *Mirror) owned(o owner) dirty {
	d := newDirty()
	k := model.Key{Kind: model.KindBinding, ID: o.port}
	was, ok := m.graph.Get(k.Kind, k.ID).(*model.Binding)
	if !ok || was.Revision >= o.revision {
		return d
	}
	b := *was
	b.HostID, b.FromID, b.Interface, b.Revision = o.host, uuid.Nil, "", o.revision
	if m.part != nil {
		if at := m.part.objects[k]; at != nil {
			at.at = o.revision
		}
	}
	m.put(d, &b)
	m.Log.Warn("another host has taken a port while the store took this one for dead", "port", o.port, "host", o.host, "revision", o.revision)
	return d
}
