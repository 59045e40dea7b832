// Package store is the contract for keeping the virtual network: objects with revisions,
// transactions that keep references whole, and a watch. Every implementation passes storetest.
package store

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Errors, wrapped with the object they concern.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("changed meanwhile")            // an expected revision does not hold
	ErrExists      = errors.New("already exists")               // id, or name within the kind
	ErrInvalid     = errors.New("invalid")                      // validation; the text names the field
	ErrReferenced  = errors.New("still referred to")            // deletion would leave a dangling reference
	ErrCompacted   = errors.New("revision is gone: list again") // watch from too far back
	ErrUnavailable = errors.New("store cannot be reached")
)

// Verb is what an Op does.
type Verb uint8

// Verbs.
const (
	Create  Verb = iota + 1 // fails when the id or name exists
	Replace                 // fails when it does not exist
	Delete                  // fails when it does not exist or is referred to
)

// Op is one step of a transaction.
type Op struct {
	Verb   Verb
	Object model.Object // for Delete only the kind and id count
	// IfRevision, when not 0, is the revision the object must still have.
	IfRevision int64
}

// Event is a change. Events of one transaction share a revision and come in the order of its ops.
type Event struct {
	Revision int64
	Object   model.Object // the new state; for a deletion the last one
	Deleted  bool
	// Synced marks the end of the initial state, once, with Object nil.
	Synced bool
}

// Store keeps objects. Objects handed out belong to the caller. Safe for concurrent use.
type Store interface {
	Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error)
	// List returns all objects of a kind ordered by name, then id, and the revision they were read at.
	List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error)
	// Txn applies all ops or none, after checking that the result is valid as a whole
	// (model.Graph). It returns the new revision and sets it in the objects.
	Txn(ctx context.Context, ops ...Op) (int64, error)
	// Watch sends the initial state of all kinds (in the order of model.Kinds), an event with Synced, and then every
	// change in order of revision, none twice, none missing, until ctx ends or the
	// stream breaks; then the channel is closed. The caller must keep reading.
	Watch(ctx context.Context) (<-chan Event, error)
	Close() error
}
