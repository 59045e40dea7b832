package store

import "context"

// Keys is text under keys, beside the objects: what operators set (".conf/...") and what hosts report (".report/..."). Keys
// begin with a dot, which no object's do, so that whoever watches objects does not see them. Safe for concurrent use.
// Every implementation passes storetest.RunKeys.
type Keys interface {
	// ReadKeys gives what is under the prefixes, all as of one revision, which it returns.
	ReadKeys(ctx context.Context, prefixes ...string) (map[string]string, int64, error)
	// WriteKeys puts the keys, or deletes those that are nil: all or none. It fails with ErrConflict when another
	// WriteKeys with the same guard, a key of its own, came after revision since. It returns the new revision.
	WriteKeys(ctx context.Context, guard string, since int64, changes map[string]*string) (int64, error)
	// WatchKeys sends the present revision, and then a revision whenever something under the prefixes has changed: read
	// again what is of interest. Changes in quick succession may share one. The channel is closed when
	// the stream breaks or ctx ends.
	WatchKeys(ctx context.Context, prefixes ...string) (<-chan int64, error)
	// Announce keeps key at what values delivered last until ctx ends, whose error it returns, or values is closed. Then the key
	// goes away, as it does within AnnounceTTL when this process dies. An outage of the store is waited for.
	Announce(ctx context.Context, key string, values <-chan string) error
}

// AnnounceTTL is for how many seconds what a process has announced survives it.
const AnnounceTTL = 10
