package conf

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Change is what happens to one layer. Exactly one of Template and Host is given.
type Change struct {
	Template string
	Host     uuid.UUID

	Clear bool // first removes what the layer has; for a host also its template
	Set   map[string]string
	Unset []string // keys; one that is not set is no error
	// Assign gives the host a template, "" none.
	Assign *string
	// Delete removes the template. It is refused while a host has it, and for the template "default".
	Delete bool
}

// names of templates are part of keys in the store, of URLs and of file names.
var templateName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// Apply makes all changes, or none when one is refused. A template that is set comes into being. The state must be the caller's.
func (s *State) Apply(changes []Change) error {
	next := s.clone()
	var errs []error
	for i := range changes {
		if err := next.apply(&changes[i]); err != nil {
			errs = append(errs, err)
		}
	}
	// Only now: changes may come in any order.
	for _, id := range slices.SortedFunc(maps.Keys(next.Hosts), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) {
		name := next.Hosts[id].Template
		_, had := s.Templates[name]
		switch err := next.checkTemplate(name); {
		case name == "" || err == nil:
		case s.Hosts[id].Template == name && had:
			errs = append(errs, fmt.Errorf("template %s: %w by host %s", name, store.ErrReferenced, id))
		case s.Hosts[id].Template != name:
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*s = *next
	return nil
}

func (s *State) clone() *State {
	c := NewState()
	for name, l := range s.Templates {
		c.Templates[name] = maps.Clone(l)
	}
	for id, h := range s.Hosts {
		c.Hosts[id] = Host{h.Template, maps.Clone(h.Values)}
	}
	return c
}

func (s *State) apply(c *Change) error {
	switch {
	case (c.Template == "") == (c.Host == uuid.Nil):
		return fmt.Errorf("%w: a change is of either a template or a host", store.ErrInvalid)
	case c.Host != uuid.Nil && c.Delete, c.Host == uuid.Nil && c.Assign != nil:
		return fmt.Errorf("%w: templates are assigned to hosts, and can be deleted", store.ErrInvalid)
	case c.Host != uuid.Nil:
		return s.applyHost(c)
	}
	if !templateName.MatchString(c.Template) {
		return fmt.Errorf("%w: template name %q: want up to 63 lower-case letters, digits, dots, dashes and underscores, the first and last a letter or digit",
			store.ErrInvalid, c.Template)
	}
	if c.Delete {
		if c.Template == DefaultTemplate {
			return fmt.Errorf("%w: template %s is that of all hosts: clear it instead", store.ErrInvalid, DefaultTemplate)
		}
		if err := s.checkTemplate(c.Template); err != nil {
			return err
		}
		delete(s.Templates, c.Template)
		return nil
	}
	l := s.Templates[c.Template]
	if l == nil || c.Clear {
		l = Layer{}
	}
	s.Templates[c.Template] = l
	return l.apply(c)
}

func (s *State) applyHost(c *Change) error {
	h := s.Hosts[c.Host]
	if h.Values == nil || c.Clear {
		h = Host{Template: h.Template, Values: Layer{}}
	}
	if c.Clear {
		h.Template = ""
	}
	if c.Assign != nil {
		h.Template = *c.Assign
	}
	s.Hosts[c.Host] = h
	return h.Values.apply(c)
}

func (l Layer) apply(c *Change) error {
	var errs []error
	for _, name := range c.Unset {
		// Of a key that is unknown, what is there may be of another version.
		if _, have := l[name]; !have {
			if _, err := Find(name); err != nil {
				errs = append(errs, err)
			}
		}
		delete(l, name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		k, err := Find(name)
		if err == nil {
			l[name], err = k.Canonical(c.Set[name])
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
