package conf

import (
	"errors"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

const (
	vmBurst  = "agent.datapath.vm_incoming_burst_capacity"
	maxFlows = "agent.datapath.max_flow_count"
)

var someKeys = []string{vmBurst, maxFlows, "agent.bridge.max_macs_per_port"}

func hostID(n int) uuid.UUID { return uuid.UUID{15: byte(n + 1)} }

// drawChange is a change that may be refused.
func drawChange(t *rapid.T) (c Change) {
	key := rapid.SampledFrom(append(someKeys, "agent.no.such"))
	if rapid.Bool().Draw(t, "of a host") {
		c.Host = hostID(rapid.IntRange(0, 2).Draw(t, "host"))
		if rapid.Bool().Draw(t, "assigns") {
			name := rapid.SampledFrom([]string{"", "default", "a", "b", "none"}).Draw(t, "assign")
			c.Assign = &name
		}
	} else {
		c.Template = rapid.SampledFrom([]string{"default", "a", "b"}).Draw(t, "template")
		c.Delete = rapid.IntRange(0, 4).Draw(t, "delete") == 0
	}
	c.Clear = rapid.IntRange(0, 4).Draw(t, "clear") == 0
	c.Set = map[string]string{}
	for range rapid.IntRange(0, 2).Draw(t, "sets") {
		c.Set[key.Draw(t, "set")] = strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "value"))
	}
	for range rapid.IntRange(0, 1).Draw(t, "unsets") {
		c.Unset = append(c.Unset, key.Draw(t, "unset"))
	}
	return c
}

// oracle is the definition: each layer in turn is asked for the key.
func oracle(s *State, host uuid.UUID, key, def string) (string, Source) {
	h := s.Hosts[host]
	if v, ok := h.Values[key]; ok {
		return v, FromHost
	}
	for _, name := range []string{h.Template, DefaultTemplate} {
		if v, ok := s.Templates[name][key]; ok {
			return v, FromTemplate(name)
		}
	}
	return def, FromSchema
}

// Whatever is changed: a refused change leaves everything as it was, an accepted one leaves no host with a template that
// does not exist, and what counts is what the definition says.
func TestLayers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewState()
		for range rapid.IntRange(1, 12).Draw(t, "transactions") {
			var changes []Change
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				changes = append(changes, drawChange(t))
			}
			before := s.clone()
			if err := s.Apply(changes); err != nil {
				if d := cmp.Diff(before, s); d != "" {
					t.Fatalf("refused (%v), and yet:\n%s", err, d)
				}
				if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, store.ErrReferenced) {
					t.Fatalf("refused for no reason: %v", err)
				}
				continue
			}
			for n := range 4 { // nothing was ever set for the last
				id := hostID(n)
				if name := s.Hosts[id].Template; name != "" && s.checkTemplate(name) != nil {
					t.Fatalf("host %d has the template %q", n, name)
				}
				r := s.ForHost(id)
				if len(r.Ignored) > 0 {
					t.Fatal(r.Ignored)
				}
				for _, v := range r.Values {
					if text, from := oracle(s, id, v.Key.Name, v.Key.Default); v.Text != text || v.Source != from {
						t.Fatalf("%s on host %d: %s from %s, want %s from %s", v.Key.Name, n, v.Text, v.Source, text, from)
					}
				}
				want, _ := oracle(s, id, maxFlows, "200000")
				if got := strconv.Itoa(r.Settings.MaxFlowCount); got != want {
					t.Fatalf("host %d: the setting is %s, the value %s", n, got, want)
				}
			}
		}
	})
}

func TestRefusedChanges(t *testing.T) {
	s := NewState()
	a, none := "a", "none"
	if err := s.Apply([]Change{
		{Host: hostID(0), Assign: &a}, // before the template is there
		{Template: "a", Set: map[string]string{vmBurst: "016"}},
	}); err != nil || s.Templates["a"][vmBurst] != "16" {
		t.Fatal(err, s)
	}
	for name, c := range map[string]struct {
		change Change
		err    error
	}{
		"of nothing":          {Change{}, store.ErrInvalid},
		"of both":             {Change{Host: hostID(0), Template: "a"}, store.ErrInvalid},
		"a host's deletion":   {Change{Host: hostID(0), Delete: true}, store.ErrInvalid},
		"a template assigned": {Change{Template: "a", Assign: &a}, store.ErrInvalid},
		"a bad name":          {Change{Template: "../a"}, store.ErrInvalid},
		"unknown template":    {Change{Host: hostID(0), Assign: &none}, store.ErrNotFound},
		"template in use":     {Change{Template: "a", Delete: true}, store.ErrReferenced},
		"no such template":    {Change{Template: "none", Delete: true}, store.ErrNotFound},
		"template of all":     {Change{Template: "default", Delete: true}, store.ErrInvalid},
		"unknown key":         {Change{Template: "a", Set: map[string]string{"agent.x": "1", vmBurst: "8"}}, store.ErrNotFound},
		"unknown key unset":   {Change{Template: "a", Unset: []string{"agent.x"}}, store.ErrNotFound},
		"bad value":           {Change{Host: hostID(0), Set: map[string]string{maxFlows: "9", vmBurst: "many"}}, store.ErrInvalid},
	} {
		before := s.clone()
		if err := s.Apply([]Change{{Template: "new"}, c.change}); !errors.Is(err, c.err) || cmp.Diff(before, s) != "" {
			t.Errorf("%s: %v, want %v; %s", name, err, c.err, cmp.Diff(before, s))
		}
	}
}

// What a later version, or etcdctl, has written and this one does not understand is not used, and is named; the next layer counts.
func TestIgnored(t *testing.T) {
	s := NewState()
	s.Templates[DefaultTemplate] = Layer{vmBurst: "8", "agent.of.tomorrow": "1"}
	s.Hosts[hostID(0)] = Host{Template: "gone", Values: Layer{vmBurst: "many", "agent.of.yesterday": "x"}}
	r := s.ForHost(hostID(0))
	if len(r.Ignored) != 3 || r.Settings.Tokens.VM != 8 {
		t.Errorf("%v, %d", r.Ignored, r.Settings.Tokens.VM)
	}
	// It can be removed.
	if err := s.Apply([]Change{{Template: DefaultTemplate, Unset: []string{"agent.of.tomorrow"}}}); err != nil {
		t.Error(err)
	}
	if _, err := s.ForTemplate("gone"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
