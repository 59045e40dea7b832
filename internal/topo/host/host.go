// Package host makes this machine known to the cloud.
package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Register sees to it that there is a host with id, under name. Idempotent; a host that is there keeps its
// name when name is empty. An error wraps one of package store's: ErrExists when another host has the name.
func Register(ctx context.Context, s store.Store, id uuid.UUID, name string) error {
	for {
		err := register(ctx, s, id, name)
		// Somebody else may do the same for us between reading and writing.
		if !errors.Is(err, store.ErrConflict) {
			if err != nil {
				return fmt.Errorf("register host %s: %w", id, err)
			}
			return nil
		}
	}
}

func register(ctx context.Context, s store.Store, id uuid.UUID, name string) error {
	have, err := s.Get(ctx, model.KindHost, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = s.Txn(ctx, store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: id, Name: name}}})
		return err
	case err != nil:
		return err
	case name == "" || have.GetMeta().Name == name:
		return nil
	}
	rev := have.GetMeta().Revision
	have.GetMeta().Name = name
	_, err = s.Txn(ctx, store.Op{Verb: store.Replace, Object: have, IfRevision: rev})
	return err
}
