package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Refusal is what was not allowed, for the log and the counters.
type Refusal struct {
	Who  Principal
	Verb Verb
	What string // kind and id
	Why  string
}

// Guarded is a store that holds whoever acts in a call's context to what they may do. What they may not see does not exist.
type Guarded struct {
	under store.Store
	told  func(context.Context, Refusal)
}

var _ store.Store = (*Guarded)(nil)

// Guard wraps a store; told hears of every refusal, on the caller's goroutine.
func Guard(s store.Store, told func(context.Context, Refusal)) *Guarded { return &Guarded{s, told} }

// Close implements store.Store; the store under it is its owner's.
func (g *Guarded) Close() error { return nil }

// Tenant implements what ref.Home asks for.
func (g *Guarded) Tenant(ctx context.Context) (string, error) { return Of(ctx).Tenant, nil }

// Get implements store.Store.
func (g *Guarded) Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error) {
	o, err := g.under.Get(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	if p := Of(ctx); !p.Sees(o) {
		g.told(ctx, Refusal{p, Read, describe(kind, id), "not visible"})
		return nil, &model.ObjectError{Ref: model.Ref{Kind: kind, ID: id}, Err: store.ErrNotFound}
	}
	return o, nil
}

// List implements store.Store.
func (g *Guarded) List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error) {
	list, rev, err := g.under.List(ctx, kind)
	if p := Of(ctx); p.Tenant != "" || p.Role == "" {
		list = slices.DeleteFunc(list, func(o model.Object) bool { return !p.Sees(o) })
	}
	return list, rev, err
}

// Txn implements store.Store.
func (g *Guarded) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	p := Of(ctx)
	for i := range ops {
		if ops[i].Object == nil {
			return 0, fmt.Errorf("%w: an op without an object", store.ErrInvalid)
		}
		if v, k := verbOf(ops[i].Verb), ops[i].Object.Kind(); !p.Role.May(v, k) {
			return 0, g.deny(ctx, p, v, describe(k, ops[i].Object.GetMeta().ID), "")
		}
		ops[i].Tenant = p.Tenant
	}
	if p.Role == Agent {
		if err := g.ownHost(ctx, p, ops); err != nil {
			return 0, err
		}
	}
	rev, err := g.under.Txn(ctx, ops...)
	if err != nil && p.Tenant != "" {
		g.notice(ctx, p, ops, err)
	}
	return rev, err
}

func (g *Guarded) deny(ctx context.Context, p Principal, v Verb, what, why string) error {
	g.told(ctx, Refusal{p, v, what, why})
	return &DeniedError{p, v, what, why}
}

// notice reports a tenant's transaction that failed because it reached for what is not the tenant's. The tenant cannot tell:
// the store's answer is that for what does not exist, and the same questions are asked of the store in either case.
func (g *Guarded) notice(ctx context.Context, p Principal, ops []store.Op, err error) {
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, model.ErrDenied) && !errors.Is(err, store.ErrExists) {
		return
	}
	for _, op := range ops {
		for _, k := range append(model.Refs(op.Object), model.KeyOf(op.Object)) {
			if o, err := g.under.Get(ctx, k.Kind, k.ID); err == nil && !model.Visible(o, p.Tenant) {
				g.told(ctx, Refusal{p, verbOf(op.Verb), describe(k.Kind, k.ID), "belongs to others"})
			}
		}
		if errors.Is(err, model.ErrDenied) {
			g.told(ctx, Refusal{p, verbOf(op.Verb), describe(op.Object.Kind(), op.Object.GetMeta().ID), err.Error()})
		}
	}
}

// ownHost holds an agent to its host: its own object, bindings to it, and ports that are bound to it. What is replaced or deleted
// must still be as it was when it was judged.
func (g *Guarded) ownHost(ctx context.Context, p Principal, ops []store.Op) error {
	for i := range ops {
		op := &ops[i]
		id := op.Object.GetMeta().ID
		what := describe(op.Object.Kind(), id)
		var have model.Object
		if op.Verb != store.Create {
			var err error
			if have, err = g.under.Get(ctx, op.Object.Kind(), id); err != nil {
				return err
			}
			if op.IfRevision == 0 {
				op.IfRevision = have.GetMeta().Revision
			}
		}
		mine := true
		switch o := op.Object.(type) {
		case *model.Host:
			mine = o.Name == p.Host && (have == nil || have.GetMeta().Name == p.Host)
		case *model.Binding:
			if op.Verb != store.Delete {
				mine = g.is(ctx, p, o.HostID, ops)
			}
			if have != nil {
				mine = mine && g.is(ctx, p, have.(*model.Binding).HostID, ops)
			}
		case *model.Port:
			if op.Verb == store.Create {
				mine = o.RouterID == uuid.Nil && o.PeerID == uuid.Nil // a container's, on a bridge
			} else {
				b, err := g.under.Get(ctx, model.KindBinding, id)
				mine = err == nil && g.is(ctx, p, b.(*model.Binding).HostID, ops)
			}
		}
		if !mine {
			return g.deny(ctx, p, verbOf(op.Verb), what, "it is not of host "+p.Host)
		}
	}
	return nil
}

// is tells whether a host, stored or about to be, is the agent's own.
func (g *Guarded) is(ctx context.Context, p Principal, host uuid.UUID, ops []store.Op) bool {
	for _, op := range ops {
		if h, ok := op.Object.(*model.Host); ok && h.ID == host {
			return h.Name == p.Host
		}
	}
	h, err := g.under.Get(ctx, model.KindHost, host)
	return err == nil && h.GetMeta().Name == p.Host
}

func verbOf(v store.Verb) Verb {
	switch v {
	case store.Create:
		return Create
	case store.Delete:
		return Delete
	}
	return Change
}

func describe(k model.Kind, id uuid.UUID) string { return string(k) + " " + id.String() }
