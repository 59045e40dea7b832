package binding

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log records effects; ports are named by their first byte.
type log struct {
	calls []string
	ups   []byte
	fail  error
}

func (l *log) Bind(p uuid.UUID, iface string, index int) error {
	if l.fail != nil {
		return l.fail
	}
	l.calls = append(l.calls, fmt.Sprintf("bind %d %s %d", p[0], iface, index))
	return nil
}

func (l *log) Unbind(p uuid.UUID, iface string, index int) {
	l.calls = append(l.calls, fmt.Sprintf("unbind %d %s %d", p[0], iface, index))
}

func (l *log) Up(p uuid.UUID) { l.ups = append(l.ups, p[0]) }

func wants(bs ...mirror.Binding) []mirror.Binding { return bs }

var (
	p1, p2     = uuid.UUID{1}, uuid.UUID{2}
	want1Tap1  = mirror.Binding{Port: p1, Interface: "tap1"}
	want2Tap1  = mirror.Binding{Port: p2, Interface: "tap1"}
	want1Tap2  = mirror.Binding{Port: p1, Interface: "tap2"}
	tap1, tap2 = Link{"tap1", 7, true}, Link{"tap2", 8, true}
)

func TestEffects(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Manager)
		want []string
	}{
		{"interface later", func(m *Manager) { m.SetBindings(wants(want1Tap1)); m.LinkChanged(tap1) }, []string{"bind 1 tap1 7"}},
		{"binding later", func(m *Manager) { m.SetLinks([]Link{tap1, tap2}); m.SetBindings(wants(want1Tap1)) }, []string{"bind 1 tap1 7"}},
		{"same news twice", func(m *Manager) {
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(tap1)
			m.LinkChanged(tap1)
			m.SetLinks([]Link{tap1})
		}, []string{"bind 1 tap1 7"}},
		{"moves away", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
			m.SetBindings(wants(mirror.Binding{Port: p1, To: uuid.UUID{9}}))
			m.SetLinks([]Link{tap1})
			m.Release(p1)
			m.Release(p1)
			m.SetLinks([]Link{tap1})
			m.SetBindings(nil)
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
		{"moves away and its interface goes first", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
			m.SetBindings(wants(mirror.Binding{Port: p1, To: uuid.UUID{9}}))
			m.LinkGone(7)
			m.Release(p1)
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
		{"moves away and its interface is another port's", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
			m.SetBindings(wants(mirror.Binding{Port: p1, To: uuid.UUID{9}}, want2Tap1))
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7", "bind 2 tap1 7"}},
		{"is to stay after all", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
			m.SetBindings(wants(mirror.Binding{Port: p1, To: uuid.UUID{9}}))
			m.SetBindings(wants(want1Tap1))
			m.Release(p1)
		}, []string{"bind 1 tap1 7"}},
		{"comes from another host", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(mirror.Binding{Port: p1, Interface: "tap1", From: uuid.UUID{9}}))
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
		}, []string{"bind 1 tap1 7"}},
		{"vanishes", func(m *Manager) { m.SetBindings(wants(want1Tap1)); m.LinkChanged(tap1); m.LinkGone(7) }, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
		{"comes back as another", func(m *Manager) {
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(tap1)
			m.LinkGone(7)
			m.LinkChanged(Link{"tap1", 9, true})
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7", "bind 1 tap1 9"}},
		{"another index, old end not told", func(m *Manager) {
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(tap1)
			m.LinkChanged(Link{"tap1", 9, true})
			m.LinkGone(7)
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7", "bind 1 tap1 9"}},
		{"renamed away", func(m *Manager) {
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(tap1)
			m.LinkChanged(Link{"x", 7, true})
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
		{"renamed to it", func(m *Manager) {
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(Link{"x", 7, true})
			m.LinkChanged(tap1)
		}, []string{"bind 1 tap1 7"}},
		{"port released", func(m *Manager) { m.SetLinks([]Link{tap1}); m.SetBindings(wants(want1Tap1)); m.SetBindings(nil) }, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
		{"another interface", func(m *Manager) {
			m.SetLinks([]Link{tap1, tap2})
			m.SetBindings(wants(want1Tap1))
			m.SetBindings(wants(want1Tap2))
		}, []string{"bind 1 tap1 7", "unbind 1 tap1 7", "bind 1 tap2 8"}},
		{"interface to another port", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want2Tap1))
			m.SetBindings(wants(want1Tap1))
		}, []string{"bind 2 tap1 7", "unbind 2 tap1 7", "bind 1 tap1 7"}},
		{"down and up", func(m *Manager) {
			m.SetLinks([]Link{tap1})
			m.SetBindings(wants(want1Tap1))
			m.LinkChanged(Link{"tap1", 7, false})
			m.LinkChanged(tap1)
		}, []string{"bind 1 tap1 7"}},
		{"gone in a list", func(m *Manager) { m.SetLinks([]Link{tap1}); m.SetBindings(wants(want1Tap1)); m.SetLinks(nil) }, []string{"bind 1 tap1 7", "unbind 1 tap1 7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l log
			c.do(New(&l))
			if !slices.Equal(l.calls, c.want) {
				t.Errorf("%q, want %q", l.calls, c.want)
			}
		})
	}
}

// That an interface is up is told once after each Bind, and not before.
func TestUp(t *testing.T) {
	l := &log{}
	m := New(l)
	down := Link{"tap1", 7, false}
	for _, step := range []struct {
		what string
		do   func()
		want []byte
	}{
		{"bound, and down", func() { m.SetBindings(wants(want1Tap1)); m.LinkChanged(down) }, nil},
		{"up", func() { m.LinkChanged(tap1) }, []byte{1}},
		{"down and up", func() { m.LinkChanged(down); m.LinkChanged(tap1) }, []byte{1}},
		{"gone, and there again", func() { m.LinkGone(7); m.LinkChanged(tap1) }, []byte{1, 1}},
		{"released, and there again", func() {
			to := want1Tap1
			to.To = uuid.UUID{9}
			m.SetBindings(wants(to))
			m.Release(p1)
			m.SetBindings(wants(want1Tap1))
		}, []byte{1, 1, 1}},
		{"another port's", func() { m.SetBindings(wants(want2Tap1)) }, []byte{1, 1, 1, 2}},
	} {
		if step.do(); !slices.Equal(l.ups, step.want) {
			t.Errorf("%s: told of %v, want %v", step.what, l.ups, step.want)
		}
	}
}

func TestState(t *testing.T) {
	l := &log{fail: errors.New("no room")}
	m := New(l)
	m.SetBindings(wants(want1Tap1))
	check := func(want Status) {
		t.Helper()
		want.Port, want.Interface = p1, "tap1"
		if got := m.State(); len(got) != 1 || got[0] != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	check(Status{State: Waiting, Reason: "interface tap1 does not exist"})
	m.LinkChanged(tap1)
	check(Status{State: Waiting, Reason: "no room"})
	if !m.Retry() {
		t.Error("what fails is not failing")
	}
	l.fail = nil
	if m.Retry() {
		t.Error("still failing")
	}
	check(Status{State: Up, IfIndex: 7})
	m.LinkChanged(Link{"tap1", 7, false})
	check(Status{State: Down, IfIndex: 7, Reason: "interface tap1 is down"})
	m.LinkGone(7)
	check(Status{State: Waiting, Reason: "interface tap1 does not exist"})
}
