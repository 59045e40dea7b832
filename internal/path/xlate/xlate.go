// Package xlate is stage 6: it turns actions on virtual ports into actions on datapath ports.
package xlate

import (
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Ports says which datapath port each local virtual port has, and back. It is immutable: With and
// Without return changed copies, which the agent publishes to its workers.
type Ports struct {
	local   map[uuid.UUID]uint32
	virtual map[uint32]uuid.UUID
	tunnel  uint32 // datapath port of the tunnels; 0: there is none

	expected map[uuid.UUID]struct{} // ports that are on the way from one host to another: what is for them waits
	keys     map[uint32]uuid.UUID   // of those that are or were expected, by tunnel key
}

// Remotes says where ports of other hosts are: see view.Snapshot.
type Remotes interface {
	Remote(vport uuid.UUID) (host uuid.UUID, peer match.Addr, key uint32, ok bool)
}

// NewPorts is the empty table.
func NewPorts() *Ports {
	return &Ports{local: map[uuid.UUID]uint32{}, virtual: map[uint32]uuid.UUID{}, expected: map[uuid.UUID]struct{}{}, keys: map[uint32]uuid.UUID{}}
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
	q := p.clone()
	if no, ok := q.local[vport]; ok {
		delete(q.virtual, no)
		delete(q.local, vport)
	}
	return q
}

// WithTunnel sets the datapath port by which other hosts are reached; 0: none.
func (p *Ports) WithTunnel(no uint32) *Ports {
	q := p.clone()
	q.tunnel = no
	return q
}

// WithExpected says that a virtual port with a tunnel key is on the way to this host, or from it. Nothing is translated into it, bound or not, until
// it is WithoutExpected.
func (p *Ports) WithExpected(vport uuid.UUID, key uint32) *Ports {
	q := p.clone()
	q.expected[vport] = struct{}{}
	if key != 0 {
		q.keys[key] = vport
	}
	return q
}

// WithoutExpected says that it has come, here or there. What comes by its key is known for it still (Behind).
func (p *Ports) WithoutExpected(vport uuid.UUID) *Ports {
	q := p.clone()
	delete(q.expected, vport)
	return q
}

// Forget says the same, and that nothing is to come by its key any more, unless it is here.
func (p *Ports) Forget(vport uuid.UUID) *Ports {
	q := p.clone()
	delete(q.expected, vport)
	if _, ok := q.local[vport]; !ok {
		maps.DeleteFunc(q.keys, func(_ uint32, id uuid.UUID) bool { return id == vport })
	}
	return q
}

// Expects reports whether a port is on the way.
func (p *Ports) Expects(vport uuid.UUID) bool {
	_, ok := p.expected[vport]
	return ok
}

// Behind finds the port of a tunnel key that is or was expected.
func (p *Ports) Behind(key uint32) (uuid.UUID, bool) {
	id, ok := p.keys[key]
	return id, ok
}

// Tunnel is the datapath port by which other hosts are reached; 0: none.
func (p *Ports) Tunnel() uint32 { return p.tunnel }

func (p *Ports) clone() *Ports {
	return &Ports{local: maps.Clone(p.local), virtual: maps.Clone(p.virtual), tunnel: p.tunnel, expected: maps.Clone(p.expected), keys: maps.Clone(p.keys)}
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
// virtual port is bound, and where the host is reached that it is bound to. Ports without an active interface, and of hosts that
// cannot be reached, are left out; when none is left the packet is dropped as Inactive. The list is in normal form
// (datapath.PutFlows).
func (p *Ports) Translate(dst action.Physical, tags []tag.Tag, v action.Virtual, remotes Remotes) (action.Physical, []tag.Tag, drop.Reason) {
	outputs, start := 0, len(dst)
	end := start // after the last output: what follows has no effect
	for i := range v {
		a := v[i]
		if a.Op != action.Forward {
			// A rewrite that was meant for a port which is left out may be overridden before any output.
			if j := slices.IndexFunc(dst[end:], func(b action.Action) bool { return a.Op.Sets() && b.Op == a.Op }); j >= 0 {
				dst = slices.Delete(dst, end+j, end+j+1)
			}
			// Neither does a tag that comes off again.
			if j := lastTag(dst[end:]); a.Op == action.PopVLAN && j >= 0 && dst[end+j].Op == action.PushVLAN {
				dst = slices.Delete(dst, end+j, end+j+1)
				continue
			}
			dst = append(dst, a)
			continue
		}
		tags = append(tags, tag.Tag{Kind: tag.Binding, ID: a.VPort})
		if no, ok := p.local[a.VPort]; ok && !p.Expects(a.VPort) {
			dst = append(dst, action.Action{Op: action.Output, Port: no})
		} else {
			host, peer, key, ok := remotes.Remote(a.VPort)
			if host != uuid.Nil {
				tags = append(tags, tag.Tag{Kind: tag.Host, ID: host})
			}
			if !ok || p.tunnel == 0 {
				continue
			}
			dst = append(dst, action.Action{Op: action.Tunnel, Port: p.tunnel, Addr: peer, Key: key})
		}
		outputs++
		end = len(dst)
	}
	if outputs == 0 {
		return dst[:start], tags, drop.Inactive
	}
	return dst[:end], tags, drop.None
}

// lastTag finds the last change of the tag; -1: there is none.
func lastTag(as action.Physical) int {
	for i := len(as) - 1; i >= 0; i-- {
		if as[i].Op == action.PushVLAN || as[i].Op == action.PopVLAN {
			return i
		}
	}
	return -1
}
