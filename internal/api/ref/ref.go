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
	// Home is the tenant for whom names are looked up first; empty for the operators' own.
	Home  string
	ids   map[model.Key]model.Object
	names map[nameKey][]uuid.UUID // of all tenants
}

type nameKey struct {
	kind model.Kind
	name string
}

// New makes an empty index.
func New() *Index {
	return &Index{ids: make(map[model.Key]model.Object), names: make(map[nameKey][]uuid.UUID)}
}

// Load reads the given kinds, or all when there are none, from the store.
func Load(ctx context.Context, s store.Store, kinds ...model.Kind) (*Index, error) {
	if len(kinds) == 0 {
		kinds = model.Kinds
	}
	x := New()
	var err error
	if x.Home, err = Home(ctx, s); err != nil {
		return nil, err
	}
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

// Home asks a store on whose behalf it is used: a tenant, or "" for operators and for stores that know no users.
func Home(ctx context.Context, s store.Store) (string, error) {
	if h, ok := s.(interface {
		Tenant(context.Context) (string, error)
	}); ok {
		return h.Tenant(ctx)
	}
	return "", nil
}

// Add puts o in, in place of what had its id.
func (x *Index) Add(o model.Object) {
	m, key := o.GetMeta(), model.KeyOf(o)
	if old := x.ids[key]; old != nil {
		k := nameKey{key.Kind, old.GetMeta().Name}
		x.names[k] = slices.DeleteFunc(x.names[k], func(id uuid.UUID) bool { return id == m.ID })
	}
	x.ids[key] = o
	if m.Name != "" {
		k := nameKey{key.Kind, m.Name}
		x.names[k] = append(x.names[k], m.ID)
	}
}

// Get finds by id; nil when there is none.
func (x *Index) Get(kind model.Kind, id uuid.UUID) model.Object {
	return x.ids[model.Key{Kind: kind, ID: id}]
}

// Named finds what Home calls by an exact name; nil when there is none.
func (x *Index) Named(kind model.Kind, name string) model.Object {
	return x.NamedFor(x.Home, kind, name)
}

// NamedFor finds what a tenant ("": the operators) calls by an exact name of its own; nil when there is none.
func (x *Index) NamedFor(tenant string, kind model.Kind, name string) model.Object {
	for _, id := range x.names[nameKey{kind, name}] {
		if o := x.Get(kind, id); o.GetMeta().Tenant == tenant {
			return o
		}
	}
	return nil
}

// Label is how to call an object that is referred to: its name where only one object has it, or else its id. A binding
// goes by its port's name.
func (x *Index) Label(kind model.Kind, id uuid.UUID) string {
	if o := x.Get(kind, id); o != nil && len(x.names[nameKey{kind, o.GetMeta().Name}]) == 1 {
		return o.GetMeta().Name
	}
	if kind == model.KindBinding {
		return x.Label(model.KindPort, id)
	}
	return id.String()
}

// Find resolves s for Home.
func (x *Index) Find(kind model.Kind, s string) (model.Object, error) {
	return x.FindFor(x.Home, kind, s)
}

// FindFor resolves s for a tenant: an exact name comes first, its own before others', then an id, then the beginning of one. A
// binding is also found by its port's name. Errors are *Error.
func (x *Index) FindFor(tenant string, kind model.Kind, s string) (model.Object, error) {
	if o, err := x.byName(tenant, kind, s); o != nil || err != nil {
		return o, err
	}
	if kind == model.KindBinding {
		if port, err := x.byName(tenant, model.KindPort, s); err != nil {
			return nil, err
		} else if port != nil {
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

// byName is nil without an error when nothing is called so. For a tenant the names of other tenants count only as far as they are
// shared; for operators all do, their own before them.
func (x *Index) byName(tenant string, kind model.Kind, name string) (model.Object, error) {
	if o := x.NamedFor(tenant, kind, name); o != nil {
		return o, nil
	}
	var found []model.Object
	for _, id := range x.names[nameKey{kind, name}] {
		if o := x.Get(kind, id); tenant == "" || o.GetMeta().Tenant == "" || o.GetMeta().Shared {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, &Error{Kind: kind, Ref: name, Matches: len(found), Named: true}
}

func (x *Index) nearest(kind model.Kind, s string) string {
	var names []string
	for n, ids := range x.names {
		if n.kind == kind && len(ids) > 0 {
			names = append(names, n.name)
		}
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
	Named   bool // it is the name of Matches objects, of as many tenants
}

func (e *Error) Error() string {
	if e.Named {
		return fmt.Sprintf("%s %q is what %d tenants call one of theirs: give the id", e.Kind, e.Ref, e.Matches)
	}
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
