// Package applied is how an operator waits until all hosts have a change: somebody asks, under a key, for a revision, and each host
// answers, under a key of its own that lives as long as its agent does, once it has applied what there was then. Nothing is written for changes that
// nobody waits for.
package applied

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

const (
	// AskedKey holds the highest revision that anybody has asked for.
	AskedKey = ".applied/asked"
	guard    = ".applied/guard"
	root     = ".report/applied/"
	attempts = 10 // others ask at the same time
)

// Key is where a host announces (store.Keys) what it has applied, in the form of Text.
func Key(host uuid.UUID) string { return root + host.String() }

// Text is a revision as keys have it.
func Text(revision int64) string { return strconv.FormatInt(revision, 10) }

// Ask has all hosts say when they have applied what there was at a revision; one that is still to come is refused (store.ErrInvalid), as nobody
// could answer others before.
func Ask(ctx context.Context, k store.Keys, revision int64) error {
	for i := 1; ; i++ {
		asked, now, err := Asked(ctx, k)
		if err != nil || asked >= revision {
			return err
		}
		if revision > now {
			return fmt.Errorf("%w: revision %d: the store is at %d", store.ErrInvalid, revision, now)
		}
		text := Text(revision)
		if _, err = k.WriteKeys(ctx, guard, now, map[string]*string{AskedKey: &text}); !errors.Is(err, store.ErrConflict) || i == attempts {
			return err
		}
	}
}

// Asked is the revision that was asked for, 0 when none was, as of another one.
func Asked(ctx context.Context, k store.Keys) (asked, now int64, err error) {
	keys, now, err := k.ReadKeys(ctx, AskedKey)
	if err != nil {
		return 0, 0, fmt.Errorf("what hosts are asked for: %w", err)
	}
	asked, _ = strconv.ParseInt(keys[AskedKey], 10, 64)
	return asked, now, nil
}

// Reports are what the hosts whose agents run have applied, as far as they were asked.
func Reports(ctx context.Context, k store.Keys) (map[uuid.UUID]int64, error) {
	keys, _, err := k.ReadKeys(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	rs := make(map[uuid.UUID]int64, len(keys))
	for key, text := range keys {
		id, err := uuid.Parse(strings.TrimPrefix(key, root))
		if err != nil {
			continue
		}
		rs[id], _ = strconv.ParseInt(text, 10, 64)
	}
	return rs, nil
}
