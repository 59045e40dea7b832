package conf

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// DefaultTemplate is the one that every host has below its own.
const DefaultTemplate = "default"

// Layer is values by key, in canonical form.
type Layer map[string]string

// Host is what is set for one host.
type Host struct {
	Template string // assigned; "" when none is
	Values   Layer
}

// State is what the store has: all layers.
type State struct {
	Templates map[string]Layer
	Hosts     map[uuid.UUID]Host
}

// NewState is empty.
func NewState() *State {
	return &State{Templates: make(map[string]Layer), Hosts: make(map[uuid.UUID]Host)}
}

// Source is where a value comes from.
type Source string

// FromSchema is the source of defaults.
const FromSchema Source = "schema"

// FromHost is the source of a host's own values.
const FromHost Source = "host"

// FromTemplate is the source of a template's.
func FromTemplate(name string) Source { return Source("template " + name) }

// Effective is a value that counts.
type Effective struct {
	Key    *Key
	Text   string // canonical
	Source Source
}

// Resolved is what counts on one host.
type Resolved struct {
	Settings *Settings
	Values   []Effective // of every key, in the schema's order
	// Ignored are values that the store has and this version cannot use: unknown keys, or values that they do not take. The next
	// layer counts. The store takes no such values from us, but from later versions and from etcdctl.
	Ignored []error
}

// ForHost resolves the layers of a host; uuid.Nil, or one that nothing is set for, has those of every host.
func (s *State) ForHost(id uuid.UUID) Resolved {
	h := s.Hosts[id]
	r := s.resolver()
	r.layer(FromHost, h.Values)
	if h.Template != "" && h.Template != DefaultTemplate {
		r.layer(FromTemplate(h.Template), s.Templates[h.Template])
	}
	return r.finish()
}

// ForTemplate resolves the layers of a host that has the template and nothing of its own. The template must exist, but for "default".
func (s *State) ForTemplate(name string) (Resolved, error) {
	if err := s.checkTemplate(name); err != nil {
		return Resolved{}, err
	}
	r := s.resolver()
	if name != DefaultTemplate {
		r.layer(FromTemplate(name), s.Templates[name])
	}
	return r.finish(), nil
}

// checkTemplate is nil when hosts can have the template. The template "default" exists, empty, even when it does not.
func (s *State) checkTemplate(name string) error {
	if _, ok := s.Templates[name]; ok || name == DefaultTemplate {
		return nil
	}
	return &UnknownTemplateError{name, ref.Nearest(name, slices.Collect(maps.Keys(s.Templates)))}
}

// UnknownTemplateError says that there is no template of a name. It wraps store.ErrNotFound.
type UnknownTemplateError struct{ Name, Nearest string }

func (e *UnknownTemplateError) Error() string {
	s := fmt.Sprintf("no template %q", e.Name)
	if e.Nearest != "" {
		s += fmt.Sprintf(", did you mean %q?", e.Nearest)
	}
	return s
}

// Unwrap gives store.ErrNotFound.
func (e *UnknownTemplateError) Unwrap() error { return store.ErrNotFound }

// resolver puts layers on top of each other, the strongest first.
type resolver struct {
	state *State
	out   Resolved
	keys  []Key
	have  []bool
	index map[string]int
}

func (s *State) resolver() *resolver {
	r := &resolver{state: s, out: Resolved{Settings: new(Settings)}, index: make(map[string]int)}
	r.keys = keysOf(r.out.Settings)
	r.have = make([]bool, len(r.keys))
	r.out.Values = make([]Effective, len(r.keys))
	for i := range r.keys {
		k := &r.keys[i]
		r.index[k.Name] = i
		r.out.Values[i] = Effective{k, k.Default, FromSchema}
	}
	return r
}

func (r *resolver) layer(from Source, values Layer) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i, ok := r.index[name]
		if !ok {
			r.out.Ignored = append(r.out.Ignored, fmt.Errorf("%s: %w", from, &UnknownKeyError{Name: name}))
			continue
		}
		if r.have[i] {
			continue
		}
		k := &r.keys[i]
		if err := k.set(values[name]); err != nil {
			r.out.Ignored = append(r.out.Ignored, fmt.Errorf("%s: %w", from, err))
			continue
		}
		r.have[i] = true
		r.out.Values[i].Text, r.out.Values[i].Source = k.value.String(), from
	}
}

func (r *resolver) finish() Resolved {
	r.layer(FromTemplate(DefaultTemplate), r.state.Templates[DefaultTemplate])
	return r.out
}
