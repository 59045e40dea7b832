package document_test

import (
	"context"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// meddled is a store in which somebody else changes something right before a transaction, once.
type meddled struct {
	store.Store
	meddle func()
}

func (m *meddled) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	if fn := m.meddle; fn != nil {
		m.meddle = nil
		fn()
	}
	return m.Store.Txn(ctx, ops...)
}
