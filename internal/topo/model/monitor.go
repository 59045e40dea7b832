package model

import (
	"fmt"

	"github.com/google/uuid"
)

// MirrorDirection says which traffic a Mirror copies, as its port or device sees it.
type MirrorDirection string

// Mirror directions.
const (
	MirrorIn   MirrorDirection = "in"   // what comes in by the port, or into the device
	MirrorOut  MirrorDirection = "out"  // what leaves by it
	MirrorBoth MirrorDirection = "both" // either
)

// Mirror copies traffic of one port, bridge or router to another port. Copies change nothing of what becomes of the original; they pass no
// filter, and are not mirrored again.
type Mirror struct {
	Meta
	PortID, BridgeID, RouterID uuid.UUID // whose traffic: exactly one is set
	Direction                  MirrorDirection
	// BeforeFilters copies what has yet to pass the filters, so that what they drop is seen, too; false: what has passed them.
	BeforeFilters bool
	Match         Condition
	ToPortID      uuid.UUID // a bridge's port without a peer
}

// Kind implements Object.
func (*Mirror) Kind() Kind { return KindMirror }

// Source is whose traffic the mirror copies.
func (m *Mirror) Source() Key {
	switch {
	case m.PortID != uuid.Nil:
		return Key{KindPort, m.PortID}
	case m.BridgeID != uuid.Nil:
		return Key{KindBridge, m.BridgeID}
	}
	return Key{KindRouter, m.RouterID}
}

func (g *Graph) validateMirror(m *Mirror) error {
	sources := 0
	for _, id := range []uuid.UUID{m.PortID, m.BridgeID, m.RouterID} {
		if id != uuid.Nil {
			sources++
		}
	}
	if sources != 1 {
		return fieldErr(m, "port", "a mirror is of exactly one port, bridge or router")
	}
	source := m.Source()
	if err := g.exists(m, string(source.Kind), source.Kind, source.ID); err != nil {
		return err
	}
	switch m.Direction {
	case MirrorIn, MirrorOut, MirrorBoth:
	default:
		return fieldErr(m, "direction", fmt.Sprintf("%q is none of in, out, both", m.Direction))
	}
	if err := g.exists(m, "to_port", KindPort, m.ToPortID); err != nil {
		return err
	}
	switch to := g.Get(KindPort, m.ToPortID).(*Port); {
	case to.ID == m.PortID:
		return fieldErr(m, "to_port", "is the port that is mirrored")
	case to.BridgeID == uuid.Nil:
		return fieldErr(m, "to_port", fmt.Sprintf("%s is of a router: copies are for a VM", RefTo(to)))
	case to.PeerID != uuid.Nil:
		return fieldErr(m, "to_port", fmt.Sprintf("%s is linked to a peer: copies are for a VM", RefTo(to)))
	}
	if field, reason := g.badCondition(&m.Match); reason != "" {
		return fieldErr(m, "match."+field, reason)
	}
	if m.Match.Connection != ConnectionAny {
		return fieldErr(m, "match.connection", "a mirror follows no connections")
	}
	return nil
}
