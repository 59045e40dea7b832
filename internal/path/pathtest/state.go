package pathtest

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

type macKey struct {
	bridge uuid.UUID
	vlan   uint16
	mac    match.MAC
}

type addrKey struct {
	id   uuid.UUID // router port or bridge
	addr match.Addr
}

type neighbour struct {
	mac    match.MAC
	failed bool
}

// State implements sim.State with what a test says has been learnt: it stands still.
type State struct {
	macs       map[macKey]uuid.UUID
	neighbours map[addrKey]neighbour
}

func newState() State {
	return State{map[macKey]uuid.UUID{}, map[addrKey]neighbour{}}
}

// MAC implements sim.State.
func (s *State) MAC(bridge uuid.UUID, vlan uint16, mac match.MAC) (port uuid.UUID, ok bool) {
	port, ok = s.macs[macKey{bridge, vlan, mac}]
	return port, ok
}

// Neighbour implements sim.State.
func (s *State) Neighbour(port uuid.UUID, addr match.Addr) (mac match.MAC, ok, failed bool) {
	n, ok := s.neighbours[addrKey{port, addr}]
	return n.mac, ok && !n.failed, n.failed
}

// BridgeNeighbour implements sim.State.
func (s *State) BridgeNeighbour(bridge uuid.UUID, addr match.Addr) (mac match.MAC, ok bool) {
	n, ok := s.neighbours[addrKey{bridge, addr}]
	return n.mac, ok
}
