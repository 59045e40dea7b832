package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
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

	parts map[uuid.UUID]*part // by port; of who calls step
}

// part is what this host has done for a port that moves.
type part struct {
	mirror.Binding
	begun int64 // when it was let go of
	next  int64 // when the store is told (again)
}

// moveRetry is how soon the store is told again.
const moveRetry = 200 * time.Millisecond

func newMover(a *Agent) *mover {
	return &mover{a: a, log: a.logs.For(logPorts), news: make(chan struct{}, 1), parts: map[uuid.UUID]*part{}}
}

// topologyChanged runs in the mirror's goroutine, when the bindings are set.
func (m *mover) topologyChanged(c mirror.Change) {
	m.mu.Lock()
	if c.BindingsChanged {
		m.moving = slices.DeleteFunc(slices.Clone(c.Bindings), func(b mirror.Binding) bool { return b.To == uuid.Nil && b.From == uuid.Nil })
	}
	some := len(m.moving) > 0
	m.mu.Unlock()
	if some { // a host may have died
		m.wake()
	}
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
		if len(m.parts) == 0 {
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
			p = &part{Binding: b, begun: m.a.clock.Now()}
			m.parts[b.Port] = p
			if b.To != uuid.Nil {
				m.letGo(p)
			}
		}
		if now := m.a.clock.Now(); now >= p.next {
			p.next = now + int64(moveRetry)
			errs = append(errs, m.release(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// dead reports whether a host will not let go by itself.
func (m *mover) dead(host uuid.UUID) bool {
	h := m.a.mirror.Snapshot().Hosts[host]
	return h == nil || h.Dead
}

// letGo ends this host's service of the port.
func (m *mover) letGo(p *part) {
	active := m.a.bindings.Release(p.Port)
	m.log.Info("port let go", "port", p.Port, "to", m.a.hostName(p.To), "was_active", active)
}

// release tells the store that nobody has to let go of the port any more.
func (m *mover) release(ctx context.Context, p *part) error {
	from := p.From
	if p.To != uuid.Nil {
		from = m.a.host.ID
	}
	done, err := attach.Released(ctx, m.a.cfg.Store, p.Port, from)
	switch {
	case err != nil || !done:
		return err
	case p.To != uuid.Nil:
		m.a.events.add(debug.EventPortMoved, p.Port.String(), "it is host %s's now", m.a.hostName(p.To))
	default:
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
