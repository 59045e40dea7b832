package store

import (
	"context"
	"time"
)

// Shared is what hosts tell each other beside the virtual network: that they live, what they have learnt, what they have
// claimed. Each entry belongs to a session and goes with it. Every implementation passes storetest.RunShared. Safe for
// concurrent use.
type Shared interface {
	// Join begins a session. It ends with Close, or when its holder has not been heard of for ttl (whole seconds; the store may
	// make it longer).
	Join(ctx context.Context, ttl time.Duration) (Session, error)
	// WatchShared sends the entries whose path begins with prefix, then an event with Synced, and then every change, in
	// order, until ctx ends or the stream breaks; then the channel is closed. The caller must keep reading. Of
	// several changes of an entry in quick succession, only the last may be sent.
	WatchShared(ctx context.Context, prefix string) (<-chan SharedEvent, error)
	// TxnWithout is Store.Txn, and fails with ErrPresent when there is an entry at path: what it does is done while there is none.
	TxnWithout(ctx context.Context, path string, ops ...Op) (int64, error)
}

// Session holds entries. Safe for concurrent use.
type Session interface {
	// Put writes an entry, whoever had it before.
	Put(ctx context.Context, path string, value []byte) error
	// Claim writes an entry, unless another session has it with another value: the value names who claims, and who comes back takes
	// over what it has claimed before. It reports whether the entry is now this one's, with this value.
	Claim(ctx context.Context, path string, value []byte) (mine bool, err error)
	// Delete removes an entry if it belongs to the session; else nothing happens.
	Delete(ctx context.Context, path string) error
	// Done is closed when the session has ended: its entries are gone, or will be soon, and it writes no more.
	Done() <-chan struct{}
	// Close ends the session and removes its entries.
	Close(ctx context.Context) error
}

// SharedEvent is a change of an entry.
type SharedEvent struct {
	Path     string
	Value    []byte // of a deletion: nil
	Revision int64
	Deleted  bool
	Synced   bool // marks the end of the initial state, once, with no path
}
