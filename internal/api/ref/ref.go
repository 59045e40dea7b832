// Package ref finds objects by what people write: a name, an id, or the beginning of an id
// that no other object of the kind shares.
package ref

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// MinPrefix is the least number of characters of an id that stand for it: fewer too easily
// name an object by accident.
const MinPrefix = 4

// Index holds objects of all kinds. Not safe for concurrent use.
type Index struct {
	ids   map[model.Key]model.Object
	names map[model.Kind]map[string]uuid.UUID
}

// New makes an empty index.
func New() *Index {
	return &Index{ids: make(map[model.Key]model.Object), names: make(map[model.Kind]map[string]uuid.UUID)}
}

// Load reads the given kinds, or all when there are none, from the store.
func Load(ctx context.Context, s store.Store, kinds ...model.Kind) (*Index, error) {
	if len(kinds) == 0 {
		kinds = model.Kinds
	}
	x := New()
	for _, k := range kinds {
		objects, _, err := s.List(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			x.Add(o)
		}
	}
	return x, nil
}

// Add puts o in, in place of what had its id. Its name now means o.
func (x *Index) Add(o model.Object) {
	m, key := o.GetMeta(), model.KeyOf(o)
	if old := x.ids[key]; old != nil && x.names[key.Kind][old.GetMeta().Name] == m.ID {
		delete(x.names[key.Kind], old.GetMeta().Name)
	}
	x.ids[key] = o
	if m.Name == "" {
		return
	}
	if x.names[key.Kind] == nil {
		x.names[key.Kind] = make(map[string]uuid.UUID)
	}
	x.names[key.Kind][m.Name] = m.ID
}

// Get finds by id; nil when there is none.
func (x *Index) Get(kind model.Kind, id uuid.UUID) model.Object {
	return x.ids[model.Key{Kind: kind, ID: id}]
}

// Named finds by exact name; nil when there is none.
func (x *Index) Named(kind model.Kind, name string) model.Object {
	if id, ok := x.names[kind][name]; ok {
		return x.Get(kind, id)
	}
	return nil
}

// Label is how to call an object that is referred to: its name, or else its id. A binding goes by its port's name.
func (x *Index) Label(kind model.Kind, id uuid.UUID) string {
	if o := x.Get(kind, id); o != nil && o.GetMeta().Name != "" {
		return o.GetMeta().Name
	}
	if kind == model.KindBinding {
		return x.Label(model.KindPort, id)
	}
	return id.String()
}

// Find resolves s: an exact name comes first, then an id, then the beginning of one. A
// binding is also found by its port's name. Errors are *Error.
func (x *Index) Find(kind model.Kind, s string) (model.Object, error) {
	if o := x.Named(kind, s); o != nil {
		return o, nil
	}
	if kind == model.KindBinding {
		if port := x.Named(model.KindPort, s); port != nil {
			if o := x.Get(kind, port.GetMeta().ID); o != nil {
				return o, nil
			}
		}
	}
	var found []model.Object
	if lower := strings.ToLower(s); len(s) >= MinPrefix {
		for key, o := range x.ids {
			if key.Kind == kind && strings.HasPrefix(key.ID.String(), lower) {
				found = append(found, o)
			}
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	e := &Error{Kind: kind, Ref: s, Matches: len(found)}
	if len(found) == 0 {
		e.Nearest = x.nearest(kind, s)
	}
	return nil, e
}

func (x *Index) nearest(kind model.Kind, s string) string {
	names := make([]string, 0, len(x.names[kind]))
	for n := range x.names[kind] {
		names = append(names, n)
	}
	return Nearest(s, names)
}

// Error says that a reference leads to no object, or to several. It wraps
// store.ErrNotFound in the first case.
type Error struct {
	Kind    model.Kind
	Ref     string
	Nearest string // a name that may have been meant; may be empty
	Matches int
}

func (e *Error) Error() string {
	if e.Matches > 1 {
		return fmt.Sprintf("%s %q is the beginning of %d ids: give more of it", e.Kind, e.Ref, e.Matches)
	}
	s := fmt.Sprintf("no %s %q", e.Kind, e.Ref)
	if e.Nearest != "" {
		s += fmt.Sprintf(", did you mean %q?", e.Nearest)
	}
	return s
}

// Unwrap gives store.ErrNotFound when there is no object.
func (e *Error) Unwrap() error {
	if e.Matches == 0 {
		return store.ErrNotFound
	}
	return nil
}

// List gives all objects of a kind, ordered by label, then id.
func (x *Index) List(kind model.Kind) []model.Object {
	var list []model.Object
	for key, o := range x.ids {
		if key.Kind == kind {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b model.Object) int {
		i, j := a.GetMeta().ID, b.GetMeta().ID
		return cmp.Or(cmp.Compare(x.Label(kind, i), x.Label(kind, j)), slices.Compare(i[:], j[:]))
	})
	return list
}
