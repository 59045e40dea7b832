// Package attach writes into the store what a hypervisor or a container runtime of this host asks for: bindings of ports to the
// host's interfaces, and ports for containers, with addresses of their own.
package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// ErrElsewhere is what a port is refused for that another host has. It wraps store.ErrConflict.
var ErrElsewhere = fmt.Errorf("bound to another host: %w", store.ErrConflict)

// Bind attaches a port to an interface of the host. It may be there or come later. Idempotent. A port that the host has on another interface moves, and a
// port that had this interface loses it: whoever makes interfaces knows best which port they are for, and an interface
// whose VM has died may have left its name to the next. A port that another host has moves here: a hypervisor that takes a VM in
// binds while the one that gives it away still has it. That host lets go first (model.Binding).
func Bind(ctx context.Context, s store.Store, host, port uuid.UUID, iface string) error {
	if _, err := s.Get(ctx, model.KindPort, port); err != nil {
		return err
	}
	return again(func() error {
		b, err := bound(ctx, s, port)
		if err != nil {
			return err
		}
		op := store.Op{Verb: store.Create, Object: &model.Binding{Meta: model.Meta{ID: port}, PortID: port, HostID: host, Interface: iface}}
		switch {
		case b == nil:
		case b.HostID == host && b.Interface == iface:
			return nil
		default:
			op.Verb, op.IfRevision = store.Replace, b.Revision
		}
		return write(ctx, s, host, iface, op)
	})
}

// Unbind takes the port from the host's interface. A port that the host does not have, or that does not exist, is left
// as it is: then done is false.
func Unbind(ctx context.Context, s store.Store, host, port uuid.UUID) (done bool, err error) {
	err = again(func() error {
		b, err := bound(ctx, s, port)
		if err != nil || b == nil || b.HostID != host {
			return err
		}
		_, err = s.Txn(ctx, store.Op{Verb: store.Delete, Object: b, IfRevision: b.Revision})
		done = err == nil
		return err
	})
	return done, err
}

// write commits ops, one of which binds iface. Who has the name already loses it in the same transaction.
func write(ctx context.Context, s store.Store, host uuid.UUID, iface string, ops ...store.Op) error {
	_, err := s.Txn(ctx, ops...)
	var refused *model.FieldError
	if !errors.As(err, &refused) || refused.Kind != model.KindBinding || refused.Field != "interface" {
		return err
	}
	all, _, listErr := s.List(ctx, model.KindBinding)
	if listErr != nil {
		return listErr
	}
	for _, o := range all {
		if old := o.(*model.Binding); old.HostID == host && old.Interface == iface {
			_, err = s.Txn(ctx, append([]store.Op{{Verb: store.Delete, Object: old, IfRevision: old.Revision}}, ops...)...)
			return err
		}
	}
	return err
}

// bound is the port's binding, nil when it has none.
func bound(ctx context.Context, s store.Store, port uuid.UUID) (*model.Binding, error) {
	o, err := s.Get(ctx, model.KindBinding, port)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return o.(*model.Binding), nil
}

func elsewhere(ctx context.Context, s store.Store, b *model.Binding) error {
	name := b.HostID.String()
	if h, err := s.Get(ctx, model.KindHost, b.HostID); err == nil && h.GetMeta().Name != "" {
		name = h.GetMeta().Name
	}
	return fmt.Errorf("port %s: interface %s of host %s has it: %w", b.PortID, b.Interface, name, ErrElsewhere)
}

// again repeats what another writer was faster with.
func again(try func() error) error {
	const attempts = 50
	var err error
	for range attempts {
		err = try()
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) || errors.Is(err, ErrElsewhere) {
			break
		}
	}
	return err
}
