package pathtest

import (
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/fragment"
	"github.com/viaduct-net/viaduct/internal/state/nat"
)

type macKey struct {
	bridge uuid.UUID
	vlan   uint16
	mac    match.MAC
}

type addrKey struct {
	id   uuid.UUID // router port or bridge
	vlan uint16
	addr match.Addr
}

type neighbour struct {
	mac    match.MAC
	failed bool
}

// State implements sim.State with what a test says has been learnt: it stands still. Connections and leased
// ports are in Tables, the real ones.
type State struct {
	Tables     *state.Tables
	Clock      *clock.Manual // of Tables
	macs       map[macKey]uuid.UUID
	neighbours map[addrKey]neighbour
}

func newState() State {
	cfg := state.DefaultConfig()
	cfg.Leaser = inOrder{}
	c := &clock.Manual{}
	return State{state.New(cfg, c), c, map[macKey]uuid.UUID{}, map[addrKey]neighbour{}}
}

// inOrder leases the block of the port wanted, or else the first, so that outcomes are the same at every run.
type inOrder struct{}

func (inOrder) Lease(_ nat.Pool, lo, _, want uint16, done func(uint16, bool)) {
	done(max(lo, want)&^(nat.BlockSize-1), true)
}

func (inOrder) Release(nat.Pool, uint16) {}

// Connection implements sim.State.
func (s *State) Connection(k tag.Kind, device uuid.UUID, t *match.Tuple) (other match.Tuple, reply, replied, ok bool) {
	return s.Tables.Connection(k, device, t)
}

// FirstFragment implements sim.State.
func (s *State) FirstFragment(t tag.Tag) (srcPort, dstPort uint16, tcpFlags uint8, ok bool) {
	return s.Tables.FirstFragment(t)
}

// Remember notes a first fragment.
func (s *State) Remember(in *Injection) {
	if v := &in.View; v.Key.Frag == match.FragFirst {
		s.Tables.RememberFragment(sim.Datagram(in.Port, v), fragment.First{SrcPort: v.Key.SrcPort, DstPort: v.Key.DstPort, TCPFlags: v.TCPFlags()})
	}
}

// FreePort implements sim.State.
func (s *State) FreePort(device uuid.UUID, t *match.Tuple, addr match.Addr, lo, hi, want uint16) (port uint16, exhausted bool) {
	return s.Tables.FreePort(device, t, addr, lo, hi, want)
}

// Lease has the ports leased that a simulation waits for.
func (s *State) Lease(c *sim.Context) {
	if c.Wait.Kind != tag.Ports {
		return
	}
	s.Tables.LeasePorts(c.Wait.ID, c.Wait.Addr, c.Lease.Lo, c.Lease.Hi, c.Lease.Want, func(tag.Tag) {})
}

// Commit adds the connections that a simulation has proposed; false when one of them could not be.
func (s *State) Commit(c *sim.Context) bool {
	ok := true
	for i := range c.Learn {
		switch l := &c.Learn[i]; l.Kind {
		case sim.LearnConnection:
			if l.Was != (match.Tuple{}) {
				s.Tables.EndConnection(tag.Of(l.Conn, l.Device, &l.Orig), l.Was, nil)
			}
			x := conntrack.Conn{Kind: l.Conn, Device: l.Device, Orig: l.Orig, Reply: l.Reply, Owner: l.Port, Idle: time.Duration(l.Idle)}
			ok = s.Tables.AddConnection(x) <= conntrack.Known && ok
		case sim.LearnReplied:
			s.Tables.ConnectionReplied(tag.Of(l.Conn, l.Device, &l.Orig))
		}
	}
	return ok
}

// MAC implements sim.State.
func (s *State) MAC(bridge uuid.UUID, vlan uint16, mac match.MAC) (port uuid.UUID, ok bool) {
	port, ok = s.macs[macKey{bridge, vlan, mac}]
	return port, ok
}

// Neighbour implements sim.State.
func (s *State) Neighbour(port uuid.UUID, addr match.Addr) (mac match.MAC, ok, failed bool) {
	n, ok := s.neighbours[addrKey{id: port, addr: addr}]
	return n.mac, ok && !n.failed, n.failed
}

// BridgeNeighbour implements sim.State.
func (s *State) BridgeNeighbour(bridge uuid.UUID, vlan uint16, addr match.Addr) (mac match.MAC, ok bool) {
	n, ok := s.neighbours[addrKey{bridge, vlan, addr}]
	return n.mac, ok
}
