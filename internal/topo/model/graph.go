package model

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/google/uuid"
)

// Graph is the whole of all objects and the rules between them. Every store validates
// against one, so that all agree on what is valid. The cost of a transaction is in
// proportion to what it touches and, for a router port, to the ports of its router.
//
// Objects inside belong to the graph and never change: a new state is a new object.
// Not safe for concurrent use.
type Graph struct {
	objects   map[Kind]map[uuid.UUID]Object
	referrers map[Key]keySet
	unique    map[uniqueKey]uuid.UUID
	// waiting are those who claim what another has, in the order in which they came: what is loaded may change hands in one transaction, of which who
	// gets comes before who gives.
	waiting map[uniqueKey][]uuid.UUID
	replica bool
}

// NewGraph makes an empty graph.
func NewGraph() *Graph {
	g := NewReplica()
	g.replica = false
	return g
}

// NewReplica makes an empty graph for those who follow a store and never write: of what has to be nobody else's, a third of a graph's memory, it knows
// only who is a tenant's default security group. Stage panics.
func NewReplica() *Graph {
	g := &Graph{
		objects:   make(map[Kind]map[uuid.UUID]Object, len(Kinds)),
		referrers: make(map[Key]keySet),
		unique:    make(map[uniqueKey]uuid.UUID),
		waiting:   make(map[uniqueKey][]uuid.UUID),
		replica:   true,
	}
	for _, k := range Kinds {
		g.objects[k] = make(map[uuid.UUID]Object)
	}
	return g
}

// Get finds an object, which the caller must not change; nil when there is none.
func (g *Graph) Get(k Kind, id uuid.UUID) Object { return g.objects[k][id] }

// All goes through the objects of a kind, in no order. The caller must not change them.
func (g *Graph) All(k Kind) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, o := range g.objects[k] {
			if !yield(o) {
				return
			}
		}
	}
}

// List gives copies of all objects of a kind ordered by name, then id.
func (g *Graph) List(k Kind) []Object {
	list := make([]Object, 0, len(g.objects[k]))
	for o := range g.All(k) {
		list = append(list, Clone(o))
	}
	slices.SortFunc(list, Compare)
	return list
}

// Compare orders objects of one kind by name, then id.
func Compare(a, b Object) int {
	x, y := a.GetMeta(), b.GetMeta()
	return cmp.Or(cmp.Compare(x.Name, y.Name), slices.Compare(x.ID[:], y.ID[:]))
}

// Load takes over what is already stored, without judging it: o replaces the
// object of the same key. The caller gives o away.
func (g *Graph) Load(o Object) { g.swap(KeyOf(o), o) }

// Unload forgets an object that was deleted from the store.
func (g *Graph) Unload(k Key) { g.swap(k, nil) }

func (g *Graph) swap(k Key, o Object) {
	s := Staged{graph: g}
	// A router port's claims depend on where its peer is: they are renewed with it.
	around := make(map[Key]struct{}, 3)
	for _, x := range []Object{g.Get(k.Kind, k.ID), o} {
		if p, ok := x.(*Port); ok && p.PeerID != uuid.Nil && p.PeerID != k.ID {
			around[Key{KindPort, p.PeerID}] = struct{}{}
		}
	}
	around[k] = struct{}{}
	for a := range around {
		if old := g.Get(a.Kind, a.ID); old != nil {
			s.unindex(old)
		}
	}
	s.set(k, o)
	for a := range around {
		if now := g.Get(a.Kind, a.ID); now != nil {
			_ = s.index(now) // what clashes keeps its first owner
		}
	}
}

// Staged is a transaction that has been found valid. The graph is already in the new
// state; exactly one of Commit and Rollback must follow before the graph is used again.
type Staged struct {
	graph   *Graph
	ops     []Op
	Changes []Change // net, in the order of ops; peers that follow come last
	undo    []func()
	tenant  string // on whose behalf; empty: an operator's
}

// Stage applies ops and checks the whole that results; when it is not valid, the graph is as
// before. References are judged after the last op, so the order of ops does not matter for them.
// Errors are *FieldError, *ReferenceError and *ObjectError.
func (g *Graph) Stage(ops ...Op) (*Staged, error) {
	if g.replica {
		panic("model: a replica judges no transaction")
	}
	changes, err := g.collect(ops)
	if err != nil {
		return nil, err
	}
	s := &Staged{graph: g, ops: ops, Changes: changes}
	if len(ops) > 0 {
		s.tenant = ops[0].Tenant
	}
	if err := s.apply(); err != nil {
		s.Rollback()
		return nil, err
	}
	return s, nil
}

// Commit keeps the new state: all its objects, those of the ops included, get revision rev.
func (s *Staged) Commit(rev int64) {
	for _, c := range s.Changes {
		if c.New != nil {
			c.New.GetMeta().Revision = rev
		}
	}
	for _, op := range s.ops {
		if op.Verb == Delete {
			continue
		}
		if o := s.graph.Get(op.Object.Kind(), op.Object.GetMeta().ID); o != nil {
			Assign(op.Object, o)
		}
	}
	s.undo = nil
}

// Rollback restores the state before Stage.
func (s *Staged) Rollback() {
	for _, u := range slices.Backward(s.undo) {
		u()
	}
	s.undo = nil
}

// collect folds ops into one change per object.
func (g *Graph) collect(ops []Op) ([]Change, error) {
	d := draft{graph: g, at: make(map[Key]int), keys: make(map[uint32]uuid.UUID)}
	for _, op := range ops {
		if op.Tenant != ops[0].Tenant {
			return nil, fmt.Errorf("%w: one transaction on behalf of two tenants", ErrInvalid)
		}
		d.tenant = op.Tenant
		if op.Object == nil || New(op.Object.Kind()) == nil {
			return nil, fmt.Errorf("%w: an op without an object of a known kind", ErrInvalid)
		}
		if err := d.op(op); err != nil {
			return nil, err
		}
	}
	if err := d.followPeers(); err != nil {
		return nil, err
	}
	// What was created and deleted again has never been.
	return slices.DeleteFunc(d.changes, func(c Change) bool { return c.Old == nil && c.New == nil }), nil
}

// draft is the graph as the ops so far would leave it.
type draft struct {
	graph   *Graph
	changes []Change
	at      map[Key]int          // into changes
	keys    map[uint32]uuid.UUID // tunnel keys of the changes' objects
	tenant  string               // on whose behalf; empty: an operator's
}

func (d *draft) get(k Key) Object {
	if i, ok := d.at[k]; ok {
		return d.changes[i].New
	}
	return d.graph.Get(k.Kind, k.ID)
}

func (d *draft) set(k Key, o Object) {
	if i, ok := d.at[k]; ok {
		d.changes[i].New = o
		return
	}
	d.at[k] = len(d.changes)
	d.changes = append(d.changes, Change{Old: d.graph.Get(k.Kind, k.ID), New: o})
}

func (d *draft) op(op Op) error {
	key := KeyOf(op.Object)
	have := d.get(key)
	if d.tenant != "" && slices.Contains(OperatorKinds, key.Kind) {
		return &ObjectError{Ref: RefTo(op.Object), Err: ErrDenied, Detail: fmt.Sprintf("a %s belongs to the installation, not to a tenant", key.Kind)}
	}
	if d.tenant != "" && have != nil && op.Verb != Create && have.GetMeta().Tenant != d.tenant {
		if Visible(have, d.tenant) {
			return &ObjectError{Ref: RefTo(have), Err: ErrDenied, Detail: "it is shared with you, but not yours"}
		}
		have = nil
	}
	if have == nil {
		if op.Verb != Create || op.IfRevision != 0 {
			return &ObjectError{Ref: RefTo(op.Object), Err: ErrNotFound}
		}
	} else {
		if op.Verb == Create {
			return &ObjectError{Ref: RefTo(op.Object), Err: ErrExists, Detail: "id " + key.ID.String()}
		}
		if r := have.GetMeta().Revision; op.IfRevision != 0 && op.IfRevision != r {
			return &ObjectError{Ref: RefTo(have), Err: ErrConflict,
				Detail: fmt.Sprintf("at revision %d, expected %d", r, op.IfRevision)}
		}
	}
	switch op.Verb {
	case Create, Replace:
		o := Clone(op.Object)
		o.GetMeta().Revision = 0
		if have != nil {
			// A second op of this transaction still expects the stored revision.
			o.GetMeta().Revision = have.GetMeta().Revision
		}
		if err := d.own(o, have); err != nil {
			return err
		}
		Normalize(o)
		Inherit(o, have)
		if n := keyed(o); n != nil {
			if *n == 0 {
				*n = d.chooseTunnelKey(key.ID)
			}
			d.keys[*n] = key.ID
		}
		d.set(key, o)
	case Delete:
		d.set(key, nil)
	default:
		return fmt.Errorf("%w: verb %d", ErrInvalid, op.Verb)
	}
	return nil
}
