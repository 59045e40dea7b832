// Package state is what flows have learnt about the virtual network, on this host.
package state

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/arp"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/fragment"
	"github.com/viaduct-net/viaduct/internal/state/mac"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/state/table"
)

// Config of Tables.
type Config struct {
	MAC mac.Config
	ARP arp.Config

	Conntrack conntrack.Config
	NAT       nat.Config
	Fragments fragment.Config
	Leaser    nat.Leaser // of the ports for translation; nil: all are this host's

	Jitter func(k arp.Key, now int64) float64 // a number in [0, 1) that spreads retries; nil: a random one
}

// DefaultConfig has the defaults of each table.
func DefaultConfig() Config {
	return Config{MAC: mac.DefaultConfig(), ARP: arp.DefaultConfig(), Conntrack: conntrack.DefaultConfig(), NAT: nat.DefaultConfig(), Fragments: fragment.DefaultConfig()}
}

// Tables is all learnt state. It implements what a simulation asks (sim.State): those
// methods take no lock and do not allocate. Safe for concurrent use. Every change
// comes with the tag whose flows it puts out of date.
type Tables struct {
	clock clock.Clock
	macs  *mac.Table
	ports *arp.Table // neighbours of router ports
	heard *arp.Table // of bridges
	conns *conntrack.Table
	nat   *nat.Ports
	frags *fragment.Table
	far   *table.Table[tag.Tag, Learnt] // what other hosts have learnt; bounded where it was
}

// New makes empty tables.
func New(cfg Config, c clock.Clock) *Tables {
	if cfg.Leaser == nil {
		cfg.Leaser = nat.NewLocal()
	}
	t := &Tables{clock: c, macs: mac.New(cfg.MAC), ports: arp.New(cfg.ARP), heard: arp.New(cfg.ARP), nat: nat.New(cfg.NAT, cfg.Leaser),
		frags: fragment.New(cfg.Fragments), far: table.New[tag.Tag, Learnt](0)}
	if cfg.Jitter != nil {
		t.ports.Jitter, t.heard.Jitter = cfg.Jitter, cfg.Jitter
	}
	cfg.Conntrack.OnRemove = t.freePorts
	t.conns = conntrack.New(cfg.Conntrack)
	return t
}

// Reconfigure changes bounds and times, for what has been learnt too; the Leaser stays.
func (t *Tables) Reconfigure(cfg Config) {
	t.macs.Reconfigure(cfg.MAC)
	t.ports.Reconfigure(cfg.ARP)
	t.heard.Reconfigure(cfg.ARP)
	t.nat.Reconfigure(cfg.NAT)
	t.conns.Reconfigure(cfg.Conntrack)
	t.frags.Reconfigure(cfg.Fragments)
}

// MAC finds the port behind which a bridge has seen m.
func (t *Tables) MAC(bridge uuid.UUID, vlan uint16, m match.MAC) (port uuid.UUID, ok bool) {
	if port, ok = t.macs.Lookup(bridge, vlan, m); ok {
		return port, true
	}
	l, ok := t.far.Get(tag.Tag{Kind: tag.MACEntry, ID: bridge, VLAN: vlan, MAC: m})
	return l.Port, ok
}

// Neighbour finds the MAC of addr on the link of a router port; failed: it does not answer.
func (t *Tables) Neighbour(port uuid.UUID, addr match.Addr) (m match.MAC, ok, failed bool) {
	if m, ok, failed = t.ports.Lookup(arp.Key{ID: port, Addr: addr}); ok {
		return m, true, false
	}
	l, ok := t.far.Get(tag.Tag{Kind: tag.Neighbour, ID: port, Addr: addr})
	return l.MAC, ok, failed && !ok
}

// BridgeNeighbour finds an address that was announced in a VLAN of a bridge.
func (t *Tables) BridgeNeighbour(bridge uuid.UUID, vlan uint16, addr match.Addr) (m match.MAC, ok bool) {
	if m, ok, _ = t.heard.Lookup(arp.Key{ID: bridge, Addr: addr, VLAN: vlan}); ok {
		return m, true
	}
	l, ok := t.far.Get(tag.Tag{Kind: tag.Neighbour, ID: bridge, Addr: addr, VLAN: vlan})
	return l.MAC, ok
}

// FirstFragment finds what the first fragment of the datagram that tg names said; not ok while it has not come.
func (t *Tables) FirstFragment(tg tag.Tag) (srcPort, dstPort uint16, tcpFlags uint8, ok bool) {
	f, ok := t.frags.Lookup(fragment.KeyOf(tg))
	return f.SrcPort, f.DstPort, f.TCPFlags, ok
}

// RememberFragment notes a first fragment of the datagram that tg names; awaited: packets wait for the tag, and can go on.
func (t *Tables) RememberFragment(tg tag.Tag, f fragment.First) (awaited bool) {
	return t.frags.Remember(fragment.KeyOf(tg), f, t.clock.Now())
}

// AwaitFragment notes that a later fragment waits for its first one; true when that has come meanwhile.
func (t *Tables) AwaitFragment(tg tag.Tag) (known bool) {
	return t.frags.Await(fragment.KeyOf(tg), t.clock.Now())
}

// LearnMAC registers that m is behind port. The flows of the tag are out of date when it is news. Not ok: the port
// has taught as many as it may.
func (t *Tables) LearnMAC(bridge uuid.UUID, vlan uint16, m match.MAC, port uuid.UUID) (changed tag.Tag, news, ok bool) {
	return t.macs.Learn(bridge, vlan, m, port, t.clock.Now())
}

// LearnNeighbour registers that addr on the link of a router port has m. When it is news, packets that wait for
// it can go on. It counts against owner, the port that taught it. Not ok: that has taught as many as it may.
func (t *Tables) LearnNeighbour(port uuid.UUID, addr match.Addr, m match.MAC, owner uuid.UUID) (changed tag.Tag, news, ok bool) {
	return t.ports.Learn(arp.Key{ID: port, Addr: addr}, m, owner, t.clock.Now())
}

// LearnBridgeNeighbour registers an announcement in a VLAN of a bridge, likewise.
func (t *Tables) LearnBridgeNeighbour(bridge uuid.UUID, vlan uint16, addr match.Addr, m match.MAC, owner uuid.UUID) (changed tag.Tag, news, ok bool) {
	return t.heard.Learn(arp.Key{ID: bridge, Addr: addr, VLAN: vlan}, m, owner, t.clock.Now())
}

// Resolve makes sure that addr is being asked for on the link of a router port, on behalf of owner. send: the caller sends
// the first request, now. Over all callers there is one request at a time. Not ok: owner waits for as many as it may.
func (t *Tables) Resolve(port uuid.UUID, addr match.Addr, owner uuid.UUID) (send, ok bool) {
	return t.ports.Resolve(port, addr, owner, t.clock.Now())
}

// Asked are the router ports on whose links addresses are being asked for: they are in use, though no flow depends on them yet.
func (t *Tables) Asked() map[uuid.UUID]struct{} { return t.ports.Asked() }

// StopAsking ends the asking for addr on the link of a router port that requests cannot be sent from. Packets that wait for the tag are to
// go on, and ask anew if they need it still. False: nobody asked.
func (t *Tables) StopAsking(port uuid.UUID, addr match.Addr) (changed tag.Tag, was bool) {
	return t.ports.StopAsking(arp.Key{ID: port, Addr: addr})
}

// Hold keeps the MAC or neighbour entry, or the connection, that a tag names from expiring, because a flow depends on it; not ok: there is
// no such connection. Each Hold that was ok is followed by one Release, with the same tag and what Hold has returned.
func (t *Tables) Hold(tg *tag.Tag) (handle uint64, ok bool) {
	switch tg.Kind {
	case tag.MACEntry:
		t.macs.Ref(*tg)
		return 0, true
	case tag.Neighbour:
		t.ports.Ref(*tg)
		return 0, true
	}
	return t.conns.Ref(tg)
}

// Release lets go of what Hold has kept, when the flow is gone.
func (t *Tables) Release(tg *tag.Tag, handle uint64) {
	switch now := t.clock.Now(); tg.Kind {
	case tag.MACEntry:
		t.macs.Unref(*tg, now)
	case tag.Neighbour:
		t.ports.Unref(*tg, now)
	default:
		t.conns.Unref(handle, now)
	}
}

// Forget removes what was learnt at a port that is gone, or on a device that is gone.
func (t *Tables) Forget(id uuid.UUID) (changed []tag.Tag) {
	t.frags.Forget(id)
	changed = t.macs.Forget(id, changed)
	changed = t.ports.Forget(id, changed)
	changed = t.conns.Forget(id, changed)
	return t.heard.Forget(id, changed)
}

// Tick lets time pass: requests to be sent now (again), and the tags of what expired. To be
// called about once a second, by one goroutine.
func (t *Tables) Tick() (ask []arp.Key, changed []tag.Tag) {
	now := t.clock.Now()
	t.frags.Tick(now)
	changed = t.macs.Tick(now, changed)
	ask, changed = t.ports.Tick(now, ask, changed)
	_, changed = t.heard.Tick(now, nil, changed) // nothing holds these: they are heard, not asked for
	changed = t.conns.Tick(now, changed)
	changed = t.nat.Tick(now, changed)
	return ask, changed
}

// Stats are sizes and refusals, for metrics.
type Stats struct {
	MACs, Neighbours, BridgeNeighbours             int
	RefusedMACs, RefusedNeighbours, RefusedBridges uint64

	Connections        int
	RefusedConnections uint64
}

// Stats reads them.
func (t *Tables) Stats() Stats {
	return Stats{
		MACs: t.macs.Len(), Neighbours: t.ports.Len(), BridgeNeighbours: t.heard.Len(),
		RefusedMACs: t.macs.Refused(), RefusedNeighbours: t.ports.Refused(), RefusedBridges: t.heard.Refused(),
		Connections: t.conns.Len(), RefusedConnections: t.conns.Refused(),
	}
}
