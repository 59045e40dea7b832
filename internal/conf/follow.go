package conf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Prefixes are where in the store what counts on a host is kept. Not the other hosts: there may be thousands.
func Prefixes(host uuid.UUID) []string { return []string{templateRoot, hostRoot + host.String()} }

// Reader is what Read needs of store.Keys.
type Reader interface {
	ReadKeys(ctx context.Context, prefixes ...string) (map[string]string, int64, error)
}

// Read gives what counts on a host, and the revision that it is of.
func Read(ctx context.Context, k Reader, host uuid.UUID) (Resolved, int64, error) {
	all, rev, err := k.ReadKeys(ctx, Prefixes(host)...)
	if err != nil {
		return Resolved{}, 0, fmt.Errorf("configuration: %w", err)
	}
	return decodeState(all).ForHost(host), rev, nil
}

// Delays between attempts to reach the store: doubled from the first to the second, with jitter.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// Follow calls fn with what counts on a host: now, and whenever it may have changed, until ctx ends, whose error it returns. While
// the store is away the last values stay.
func Follow(ctx context.Context, k store.Keys, host uuid.UUID, log *slog.Logger, fn func(Resolved, int64)) error {
	delay := retryMin
	for {
		err := follow(ctx, k, host, func(r Resolved, rev int64) {
			delay = retryMin
			fn(r, rev)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("the configuration cannot be followed: the last known values stay", "error", err, "retry_in", delay)
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(2*delay, retryMax)
	}
}

var errBroken = errors.New("the stream broke")

func follow(ctx context.Context, k store.Keys, host uuid.UUID, fn func(Resolved, int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news, err := k.WatchKeys(ctx, Prefixes(host)...)
	if err != nil {
		return err
	}
	for range news {
		r, rev, err := Read(ctx, k, host)
		if err != nil {
			return err
		}
		fn(r, rev)
	}
	return errBroken
}
