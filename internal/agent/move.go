package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
	"github.com/viaduct-net/viaduct/internal/topo/attach"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

// mover has ports change hosts so that two hosts never serve one at the same time, and the new one knows the port's connections before
// its first packet. The binding in the store gives the order: who has the port lets go of it, hands over, and then says so
// (attach.Released); who is to have it waits for that. Where the host that has it is dead, the new one says so in its place: it
// starts with what it knows itself.
type mover struct {
	a    *Agent
	log  *slog.Logger
	news chan struct{} // holds one

	mu     sync.Mutex
	moving []mirror.Binding // of this host, those with To or From; guarded by mu
	// Ports that are on the way: until when this host minds what comes for them; 0: for as long as their old host has them. Guarded by mu.
	comes, goes map[uuid.UUID]int64
	had         map[uuid.UUID]bool // the ports of this host; guarded by mu

	parts map[uuid.UUID]*part  // by port; of who calls step
	taken map[uuid.UUID]*taken // by the dead host that had them; of who calls step
}

// part is what this host has done for a port that moves.
type part struct {
	mirror.Binding
	next int64 // when the store is told (again), once the other host knows what this one does
	told chan int
	late int64 // when it is not waited for any more
}

// taken are ports that a host had that was dead. It may be alive and cut off from the store, and serve them still: it is told until it is
// back. Only who took them says so, and not after a new start.
type taken struct {
	ports []replicate.Owned
	next  int64
	wait  time.Duration
}

const (
	moveRetry = 200 * time.Millisecond // how soon the store is told again
	moveTold  = 3 * time.Second        // for how long the other host may not acknowledge what it is told
	// ownMin and ownMax: how soon a dead host is told again that it has lost ports, twice as late each time.
	ownMin, ownMax = time.Second, 30 * time.Second

	moveWait = 2 * time.Second // for how long what comes for a port waits for its interface, or follows it
)

func newMover(a *Agent) *mover {
	return &mover{a: a, log: a.logs.For(logPorts), news: make(chan struct{}, 1), parts: map[uuid.UUID]*part{}, taken: map[uuid.UUID]*taken{}, comes: map[uuid.UUID]int64{}, goes: map[uuid.UUID]int64{}}
}

// topologyChanged runs in the mirror's goroutine, when the bindings are set.
func (m *mover) topologyChanged(c mirror.Change) {
	m.mu.Lock()
	if c.BindingsChanged {
		m.moving = slices.DeleteFunc(slices.Clone(c.Bindings), func(b mirror.Binding) bool { return b.To == uuid.Nil && b.From == uuid.Nil })
		m.expect(c.Bindings)
	}
	some := len(m.moving)+len(m.comes)+len(m.goes) > 0
	m.mu.Unlock()
	if some { // a host may have died
		m.wake()
	}
}

// expect has what comes for ports that move wait. Of one that comes: as long as another host has it, that goes there; and then, as of any that is new
// here, until the interface is up, for moveWait at most. Of one that goes (letGo): until its new host may have it, and for moveWait it follows. The caller holds mu.
func (m *mover) expect(bindings []mirror.Binding) {
	now, here := m.a.clock.Now(), map[uuid.UUID]mirror.Binding{}
	for _, b := range bindings {
		here[b.Port] = b
		at, comes := m.comes[b.Port]
		switch {
		case b.To != uuid.Nil:
		case b.From != uuid.Nil:
			m.comes[b.Port] = 0
			m.a.ports.expect(b.Port, false)
		case comes && at == 0:
			m.comes[b.Port] = now + int64(moveWait)
		case !comes && !m.had[b.Port] && m.a.Ready() == nil: // at the start, keys of an earlier agent lead to ports already
			m.comes[b.Port] = now + int64(moveWait)
			m.a.ports.expect(b.Port, false)
		}
	}
	m.had = make(map[uuid.UUID]bool, len(here))
	for port := range here {
		m.had[port] = true
	}
	for _, port := range sorted(m.goes) {
		switch b, ok := here[port]; {
		case !ok:
			if m.a.ports.passOn(port) {
				m.goes[port] = now + int64(moveWait)
			}
		case ok && b.To == uuid.Nil: // it comes back, or has never gone
			delete(m.goes, port)
			if _, comes := m.comes[port]; !comes {
				m.a.ports.unexpect(port)
			}
		}
	}
	for _, port := range sorted(m.comes) {
		if b, ok := here[port]; !ok || b.To != uuid.Nil {
			delete(m.comes, port)
			m.a.ports.unexpect(port)
		}
	}
}

// late ends what has lasted long enough, and reports whether anything is left.
func (m *mover) late() (some bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.a.clock.Now()
	for _, ports := range []map[uuid.UUID]int64{m.comes, m.goes} {
		for _, port := range sorted(ports) {
			if at := ports[port]; at != 0 && at <= now {
				delete(ports, port)
				m.a.ports.unexpect(port)
			}
		}
	}
	return len(m.comes)+len(m.goes) > 0
}

// sorted are ids in an order that is the same each time.
func sorted[V any](ids map[uuid.UUID]V) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(ids), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

func (m *mover) wake() {
	select {
	case m.news <- struct{}{}:
	default: // it will look anyway
	}
}

func (m *mover) list() []mirror.Binding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moving
}

// run works until ctx ends.
func (m *mover) run(ctx context.Context) error {
	select {
	case <-m.a.served: // what an earlier agent knew is known again
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(moveRetry)
	defer tick.Stop()
	for {
		if err := m.step(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("a port cannot move on", "error", err, "retry_in", moveRetry)
		}
		again := tick.C
		if len(m.parts)+len(m.taken) == 0 && !m.late() {
			again = nil
		}
		select {
		case <-m.news:
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step does what is to be done now.
func (m *mover) step(ctx context.Context) error {
	moving := m.list()
	m.late()
	for port, p := range m.parts {
		if !slices.Contains(moving, p.Binding) {
			delete(m.parts, port)
		}
	}
	var errs []error
	for _, b := range moving {
		if b.From != uuid.Nil && !m.dead(b.From) {
			continue
		}
		p := m.parts[b.Port]
		if p == nil {
			p = &part{Binding: b, late: m.a.clock.Now() + int64(moveTold)}
			m.parts[b.Port] = p
			if b.To != uuid.Nil {
				errs = append(errs, m.letGo(ctx, p))
			}
		}
		if now := m.a.clock.Now(); now >= p.next && m.knows(p, now) {
			p.next = now + int64(moveRetry)
			errs = append(errs, m.release(ctx, p))
		}
	}
	m.tellTaken()
	return errors.Join(errs...)
}

// tellTaken tells dead hosts which ports are not theirs any more, when it is time.
func (m *mover) tellTaken() {
	now, w := m.a.clock.Now(), m.a.workers[0]
	for _, host := range sorted(m.taken) {
		x, h := m.taken[host], m.a.mirror.Snapshot().Hosts[host]
		x.ports = slices.DeleteFunc(x.ports, func(o replicate.Owned) bool { return !m.has(o.Port) })
		if len(x.ports) == 0 || h == nil || !h.Dead {
			delete(m.taken, host)
			continue
		}
		if now < x.next || h.End == (match.Addr{}) {
			continue
		}
		to, ports := h.End, slices.Clone(x.ports)
		w.Do(func() { w.TellOwned(to, ports) })
		x.next, x.wait = now+int64(x.wait), min(2*x.wait, ownMax)
	}
}

// has reports whether this host is to have a port.
func (m *mover) has(port uuid.UUID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.had[port]
}

// dead reports whether a host will not let go by itself.
func (m *mover) dead(host uuid.UUID) bool {
	h := m.a.mirror.Snapshot().Hosts[host]
	return h == nil || h.Dead
}

// letGo ends this host's service of the port, and begins to tell the host that gets it of its connections.
func (m *mover) letGo(ctx context.Context, p *part) error {
	known, err := m.flowsOf(ctx, p.Port)
	m.mu.Lock()
	if slices.Contains(m.moving, p.Binding) { // still
		m.goes[p.Port] = p.late + int64(moveWait) // without the store it does not get on
		m.a.ports.expect(p.Port, true)
	}
	m.mu.Unlock()
	for _, w := range m.a.workers { // no flow leads to it any more
		err = errors.Join(err, m.a.call(w, ctx, func() {}))
	}
	active := m.a.bindings.Release(p.Port)
	for _, w := range m.a.workers { // packets that were at hand have had their effect
		err = errors.Join(err, m.a.call(w, ctx, func() {}))
	}
	conns := m.connections(p.Port, known)
	m.log.Info("port let go", "port", p.Port, "to", m.a.hostName(p.To), "was_active", active, "connections", len(conns))
	h := m.a.mirror.Snapshot().Hosts[p.To]
	switch {
	case len(conns) == 0:
	case h == nil || h.Tunnel == (match.Addr{}):
		m.log.Warn("port moves without its connections: the other host cannot be reached", "port", p.Port, "to", m.a.hostName(p.To))
	default:
		heard := m.telling(p)
		w := m.a.workers[0]
		w.Do(func() { w.Tell(h.Tunnel, conns, heard) })
	}
	return err
}

// telling returns what a worker calls once the other host has acknowledged what it is told, or is given up. It never blocks, even if nobody
// waits for it any more.
func (m *mover) telling(p *part) func(missed int) {
	told := make(chan int, 1)
	p.told = told
	return func(missed int) {
		told <- missed
		m.wake()
	}
}

// knows reports whether the other host has acknowledged what it was told, or is not waited for any more.
func (m *mover) knows(p *part, now int64) bool {
	missed := 0
	if p.told != nil {
		select {
		case missed = <-p.told:
		default:
			if now < p.late {
				return false
			}
			missed = -1
		}
		p.told = nil
	}
	if missed != 0 {
		m.log.Warn("port moves, and the other host may not know all of its connections", "port", p.Port, "to", m.a.hostName(p.To))
	}
	return true
}

// ofPort is what flows of a port say of its connections.
type ofPort struct {
	tags  map[tag.Tag]bool    // directions
	addrs map[match.Addr]bool // that are the port's own
}

// flowsOf looks through the flows, some at a time between packets.
func (m *mover) flowsOf(ctx context.Context, port uuid.UUID) (ofPort, error) {
	of := ofPort{map[tag.Tag]bool{}, map[match.Addr]bool{}}
	v := m.a.mirror.Snapshot().Port(port)
	addr := func(match.Addr) {}
	if v != nil && v.Router == uuid.Nil {
		addr = func(a match.Addr) { of.addrs[a] = true }
		for _, a := range v.Addrs {
			addr(match.AddrFrom(a.Addr()))
		}
	}
	dp, ok := m.a.ports.get(port)
	if !ok {
		return of, nil
	}
	for _, w := range m.a.workers {
		for place, more := uint32(0), true; more; more = place != 0 {
			if err := m.a.call(w, ctx, func() {
				place = w.SomeConnectionsOf(dp.No, place, func(t tag.Tag) { of.tags[t] = true }, addr)
			}); err != nil {
				return ofPort{}, err // the worker may still write into the other
			}
		}
	}
	return of, nil
}

// connections lists what is known of a port's: those that its flows depend on, and silent ones that it pays for, that are its own,
// or that have one of its addresses at an end.
func (m *mover) connections(port uuid.UUID, of ofPort) (list []replicate.Conn) {
	m.a.tables.Connections(func(c *conntrack.Conn, s conntrack.State) {
		if c.Owner == port || c.Device == port || of.addrs[c.Orig.Src] || of.addrs[c.Orig.Dst] || of.addrs[c.Reply.Src] || of.addrs[c.Reply.Dst] ||
			of.tags[tag.Of(c.Kind, c.Device, &c.Orig)] || of.tags[tag.Of(c.Kind, c.Device, &c.Reply)] {
			list = append(list, replicate.Conn{Conn: *c, State: s})
		}
	})
	return list
}

// release tells the store that nobody has to let go of the port any more.
func (m *mover) release(ctx context.Context, p *part) error {
	var revision int64
	var err error
	if p.To != uuid.Nil {
		revision, err = attach.Released(ctx, m.a.cfg.Store, p.Port, m.a.host.ID)
	} else { // it may be back, and this host not have heard of it
		revision, err = attach.Taken(ctx, m.a.cfg.Store, m.a.cfg.Shared, p.Port, p.From)
	}
	switch {
	case err != nil || revision == 0:
		return err
	case p.To != uuid.Nil:
		m.a.events.add(debug.EventPortMoved, p.Port.String(), "it is host %s's now", m.a.hostName(p.To))
	default:
		x := m.taken[p.From]
		if x == nil {
			x = &taken{}
			m.taken[p.From] = x
		}
		x.ports, x.next, x.wait = append(x.ports, replicate.Owned{Port: p.Port, Revision: revision}), 0, ownMin
		m.a.events.add(debug.EventPortMoved, p.Port.String(), "host %s is dead: its port is taken without what it knew of connections", m.a.hostName(p.From))
		m.log.Warn("port taken from a dead host, without what it knew of connections", "port", p.Port, "host", m.a.hostName(p.From))
	}
	return nil
}

// hostName is how people know another host.
func (a *Agent) hostName(id uuid.UUID) string {
	if h := a.mirror.Snapshot().Hosts[id]; h != nil && h.Name != "" {
		return h.Name
	}
	return id.String()
}
