// Package xlate is stage 6: it turns actions on virtual ports into actions on datapath ports.
package xlate

import (
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Ports says which datapath port each local virtual port has, and back. It is immutable: With and
// Without return changed copies, which the agent publishes to its workers.
type Ports struct {
	local   map[uuid.UUID]uint32
	virtual map[uint32]uuid.UUID
}

// NewPorts is the empty table.
func NewPorts() *Ports {
	return &Ports{local: map[uuid.UUID]uint32{}, virtual: map[uint32]uuid.UUID{}}
}

// With adds a pair; a previous one of either side is replaced.
func (p *Ports) With(vport uuid.UUID, no uint32) *Ports {
	q := p.Without(vport)
	if old, ok := q.virtual[no]; ok {
		delete(q.local, old)
	}
	q.local[vport], q.virtual[no] = no, vport
	return q
}

// Without removes a virtual port.
func (p *Ports) Without(vport uuid.UUID) *Ports {
	q := &Ports{local: maps.Clone(p.local), virtual: maps.Clone(p.virtual)}
	if no, ok := q.local[vport]; ok {
		delete(q.virtual, no)
		delete(q.local, vport)
	}
	return q
}

// Virtual finds the virtual port of a datapath port.
func (p *Ports) Virtual(no uint32) (uuid.UUID, bool) {
	id, ok := p.virtual[no]
	return id, ok
}

// Local finds the datapath port of a virtual port that is on this host.
func (p *Ports) Local(vport uuid.UUID) (uint32, bool) {
	no, ok := p.local[vport]
	return no, ok
}

// Len is the number of pairs.
func (p *Ports) Len() int { return len(p.local) }

// Translate appends to dst the physical form of v and to tags what it depends on: where each
// virtual port is bound. Ports without an active interface are left out; when none is left
// the packet is dropped as Inactive. The list is in normal form (datapath.PutFlows).
func (p *Ports) Translate(dst action.Physical, tags []tag.Tag, v action.Virtual) (action.Physical, []tag.Tag, drop.Reason) {
	outputs, start := 0, len(dst)
	end := start // after the last output: what follows has no effect
	for i := range v {
		a := v[i]
		if a.Op != action.Forward {
			// A rewrite that was meant for a port which is left out may be overridden before any output.
			if j := slices.IndexFunc(dst[end:], func(b action.Action) bool { return a.Op.Sets() && b.Op == a.Op }); j >= 0 {
				dst = slices.Delete(dst, end+j, end+j+1)
			}
			dst = append(dst, a)
			continue
		}
		tags = append(tags, tag.Tag{Kind: tag.Binding, ID: a.VPort})
		no, ok := p.local[a.VPort]
		if !ok {
			continue
		}
		dst = append(dst, action.Action{Op: action.Output, Port: no})
		outputs++
		end = len(dst)
	}
	if outputs == 0 {
		return dst[:start], tags, drop.Inactive
	}
	return dst[:end], tags, drop.None
}
