// Package binding brings virtual ports and this host's interfaces together: a port that the store binds to an
// interface is handed to the datapath as soon as the interface is there, and taken back when either goes.
package binding

import (
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

// Effects is what the agent does about it. The calls come one at a time, in order; each Bind
// that succeeded is followed by one Unbind with the same arguments before the port's next Bind.
type Effects interface {
	// Bind attaches an interface. After an error it is tried again.
	Bind(port uuid.UUID, iface string, ifIndex int) error
	// Up says that the interface of a port that is bound is up: once after each Bind, as soon as that is so.
	Up(port uuid.UUID)
	// Unbind detaches it. The interface may be gone, or have another name by now.
	Unbind(port uuid.UUID, iface string, ifIndex int)
}

// Link is an interface of the host. Name and index may each come to another link later.
type Link struct {
	Name  string
	Index int
	Up    bool // administratively, and the carrier too where it is known
}

// State is how far a binding has come.
type State string

// States.
const (
	Waiting State = "waiting" // not attached; Status.Reason says for what it waits
	Up      State = "up"
	Down    State = "down" // attached, but the interface is down
)

// Status is a binding as people want to see it.
type Status struct {
	Port      uuid.UUID
	Interface string
	IfIndex   int // 0 while waiting
	State     State
	Reason    string    // empty when up
	From      uuid.UUID // the host that is to let go of the port first
}

// Manager compares what is wanted with what is there after every change of either. Safe for concurrent
// use; a call returns when its effects are done.
type Manager struct {
	effects Effects
	listed  chan struct{} // closed by the first SetLinks

	mu     sync.Mutex
	wanted []mirror.Binding // ordered by port
	links  map[int]Link
	bound  map[uuid.UUID]Link // as they were at Bind
	up     map[uuid.UUID]bool // of bound, those of which that was told
	failed map[uuid.UUID]error
}

// New makes a manager without bindings and links.
func New(e Effects) *Manager {
	return &Manager{effects: e, listed: make(chan struct{}), links: make(map[int]Link), bound: make(map[uuid.UUID]Link), up: make(map[uuid.UUID]bool), failed: make(map[uuid.UUID]error)}
}

// SetBindings says which bindings this host has: all of them.
func (m *Manager) SetBindings(bs []mirror.Binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = slices.SortedFunc(slices.Values(bs), func(a, b mirror.Binding) int { return slices.Compare(a.Port[:], b.Port[:]) })
	m.reconcile()
}

// SetLinks says which interfaces there are: all of them.
func (m *Manager) SetLinks(ls []Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.links)
	for _, l := range ls {
		m.links[l.Index] = l
	}
	m.reconcile()
	select {
	case <-m.listed:
	default:
		close(m.listed)
	}
}

// Listed is closed when it is known which interfaces there are, and those bound were tried once.
func (m *Manager) Listed() <-chan struct{} { return m.listed }

// LinkChanged says that there is l, new or with another name or state.
func (m *Manager) LinkChanged(l Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.links {
		if other.Name == l.Name && i != l.Index {
			delete(m.links, i) // its end is still to be told
		}
	}
	m.links[l.Index] = l
	m.reconcile()
}

// LinkGone says that the link of an index is no more.
func (m *Manager) LinkGone(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, index)
	m.reconcile()
}

// Retry tries again what has failed, and reports whether something still fails.
func (m *Manager) Retry() (failing bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.failed) > 0 {
		m.reconcile()
	}
	return len(m.failed) > 0
}

// State lists the bindings, ordered by port.
func (m *Manager) State() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Status
	for _, w := range m.wanted {
		s := Status{Port: w.Port, Interface: w.Interface, State: Waiting, From: w.From}
		l, ok := m.bound[w.Port]
		if w.To != uuid.Nil {
			if !ok {
				continue // it has gone, and soon the store says so
			}
			s.Interface = l.Name
		}
		switch {
		case w.From != uuid.Nil:
			s.Reason = "another host is to let go of it first"
		case ok && m.links[l.Index].Up:
			s.State, s.IfIndex = Up, l.Index
		case ok:
			s.State, s.IfIndex, s.Reason = Down, l.Index, fmt.Sprintf("interface %s is down", s.Interface)
		case m.failed[w.Port] != nil:
			s.Reason = m.failed[w.Port].Error()
		default:
			s.Reason = fmt.Sprintf("interface %s does not exist", w.Interface)
		}
		list = append(list, s)
	}
	return list
}

// Release detaches a port that another host is to have (mirror.Binding.To), and reports whether the port was attached. A port that is to stay
// stays.
func (m *Manager) Release(port uuid.UUID) (was bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.bound[port]
	if !ok || !slices.ContainsFunc(m.wanted, func(w mirror.Binding) bool { return w.Port == port && w.To != uuid.Nil }) {
		return false
	}
	m.unbind(port, l)
	return true
}

// reconcile takes back what no longer fits, then attaches what does: an interface that goes
// from one port to another is free before its new port comes. The caller holds mu.
func (m *Manager) reconcile() {
	byName := make(map[string]Link, len(m.links))
	for _, l := range m.links {
		byName[l.Name] = l
	}
	fits := make(map[uuid.UUID]Link, len(m.wanted))
	taken := make(map[string]bool, len(m.wanted)) // by ports that stay
	for _, w := range m.wanted {
		taken[w.Interface] = taken[w.Interface] || w.To == uuid.Nil && w.From == uuid.Nil
	}
	for _, w := range m.wanted {
		l, ok := byName[w.Interface]
		if w.To != uuid.Nil { // it is attached until it is released, and never anew
			was, attached := m.bound[w.Port]
			l, ok = byName[was.Name]
			ok = ok && attached && l.Index == was.Index && !taken[l.Name]
		}
		if ok && w.From == uuid.Nil {
			fits[w.Port] = l
		}
	}
	var ports []uuid.UUID
	for p := range m.bound {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	for _, p := range ports {
		was := m.bound[p]
		if is, ok := fits[p]; !ok || is.Index != was.Index || is.Name != was.Name {
			m.unbind(p, was)
		}
	}
	clear(m.failed)
	for _, w := range m.wanted {
		l, ok := fits[w.Port]
		if _, done := m.bound[w.Port]; !ok || done {
			continue
		}
		if err := m.effects.Bind(w.Port, l.Name, l.Index); err != nil {
			m.failed[w.Port] = err
			continue
		}
		m.bound[w.Port] = l
	}
	for _, w := range m.wanted {
		if l, ok := m.bound[w.Port]; ok && m.links[l.Index].Up && !m.up[w.Port] {
			m.up[w.Port] = true
			m.effects.Up(w.Port)
		}
	}
}

// unbind takes a port back. The caller holds mu.
func (m *Manager) unbind(p uuid.UUID, l Link) {
	m.effects.Unbind(p, l.Name, l.Index)
	delete(m.bound, p)
	delete(m.up, p)
}
