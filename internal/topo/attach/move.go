package attach

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Released says that from, which calls it, has let go of a port that moves; the revision is that of the binding then. A port of which it is not so, by now, is left as it is: then
// the revision is 0.
func Released(ctx context.Context, s store.Store, port, from uuid.UUID) (revision int64, err error) {
	return released(ctx, s, port, from, s.Txn)
}

// Taken says that from, which is dead, cannot have a port any more that moves. Where it is not so, by now, the port is left as it is: a host that
// is back lets go itself. Then the revision is 0.
func Taken(ctx context.Context, s store.Store, sh store.Shared, port, from uuid.UUID) (revision int64, err error) {
	revision, err = released(ctx, s, port, from, func(ctx context.Context, ops ...store.Op) (int64, error) {
		return sh.TxnWithout(ctx, live.Path(from), ops...)
	})
	if errors.Is(err, store.ErrPresent) {
		return 0, nil
	}
	return revision, err
}

func released(ctx context.Context, s store.Store, port, from uuid.UUID, txn func(context.Context, ...store.Op) (int64, error)) (revision int64, err error) {
	err = again(func() error {
		b, err := bound(ctx, s, port)
		if err != nil || b == nil || b.FromID != from {
			return err
		}
		revision, err = txn(ctx, store.Op{Verb: store.Replace, Object: b.Released(), IfRevision: b.Revision})
		if errors.Is(err, model.ErrNotFound) {
			return nil // deleted meanwhile
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return revision, nil
}
