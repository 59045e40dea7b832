package attach

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Released says that from has let go of a port that moves, or cannot have it any more. A port of which it is not so, by now,
// is left as it is: then done is false.
func Released(ctx context.Context, s store.Store, port, from uuid.UUID) (done bool, err error) {
	err = again(func() error {
		b, err := bound(ctx, s, port)
		if err != nil || b == nil || b.FromID != from {
			return err
		}
		_, err = s.Txn(ctx, store.Op{Verb: store.Replace, Object: b.Released(), IfRevision: b.Revision})
		done = err == nil
		if errors.Is(err, model.ErrNotFound) {
			return nil // deleted meanwhile
		}
		return err
	})
	return done, err
}
