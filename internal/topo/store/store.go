// Package store is the contract for keeping the virtual network: objects with revisions,
// transactions that keep references whole, and a watch. Every implementation passes storetest.
package store

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Errors, wrapped with the object they concern. The first five are the model's:
// model.FieldError, ReferenceError and ObjectError tell more.
var (
	ErrNotFound    = model.ErrNotFound
	ErrConflict    = model.ErrConflict
	ErrExists      = model.ErrExists
	ErrInvalid     = model.ErrInvalid
	ErrReferenced  = model.ErrReferenced
	ErrCompacted   = errors.New("revision is gone: list again") // watch from too far back
	ErrUnavailable = errors.New("store cannot be reached")
	ErrPresent     = errors.New("there is an entry that must not be") // Shared.TxnWithout
)

// Verb is what an Op does.
type Verb = model.Verb

// Verbs.
const (
	Create  = model.Create
	Replace = model.Replace
	Delete  = model.Delete
)

// Op is one step of a transaction.
type Op = model.Op

// Event is a change. Events of one transaction share a revision and come in the order of its ops, one for each
// object; those of peers that followed come last.
type Event struct {
	// Revision is the transaction's; in the initial state the one that was read.
	Revision int64
	Object   model.Object // the new state; for a deletion the last one that is known, at least kind and id
	Deleted  bool
	// Last marks the last event of a transaction: who applies what came up to here, and
	// no less, never sees half of one.
	Last bool
	// Synced marks the end of the initial state, once, with Object nil.
	Synced bool
}

// Store keeps objects. Objects handed out belong to the caller. Safe for concurrent use.
type Store interface {
	Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error)
	// List returns all objects of a kind ordered by name, then id, and the revision they were read at.
	List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error)
	// Txn applies all ops or none, after checking that the result is valid as a whole
	// (model.Graph). It returns the new revision and sets the ops' objects to what is stored now, revision and defaults included.
	Txn(ctx context.Context, ops ...Op) (int64, error)
	// Watch sends the initial state of all kinds (in the order of model.Kinds), an event with Synced, and then every
	// change in order of revision, none twice, none missing, until ctx ends or the
	// stream breaks; then the channel is closed. The caller must keep reading.
	Watch(ctx context.Context) (<-chan Event, error)
	Close() error
}
