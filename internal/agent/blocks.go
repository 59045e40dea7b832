package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// blocks leases ports for translation so that no two hosts use the same: a block is an entry in the store that one host has
// claimed. It implements nat.Leaser. While the store is away no block is leased; those that are go on being used.
type blocks struct {
	host  string
	store store.Shared
	log   *slog.Logger
	asked chan blockRequest
	rand  func(n int) int
	// freed is told of a block that no host has any more.
	freed func(p nat.Pool, first uint16)

	// Of the goroutine in run.
	session store.Session
	mine    map[string]bool   // paths that this host uses
	taken   map[string]string // by path: the host that has it
	before  map[string]string // what taken was before the present watch; nil once that has told all
	doubt   map[string]bool   // paths of which it is not known whether the store has done what was asked

	mu    sync.Mutex
	own   []string        // of mine, for who keeps them on disk; guarded by mu
	spare map[string]bool // an earlier agent has claimed them, and they are still this host's; until until
	until time.Time
}

type blockRequest struct {
	pool         nat.Pool
	lo, hi, want uint16
	done         func(block uint16, ok bool) // nil: the block want is given back
}

const (
	blocksPrefix = "nat/"
	// blocksTTL is for how long a host's blocks stay its own that is not heard of: its kernel may go on translating to them.
	blocksTTL = time.Hour
	// blockTries bounds how often another host may be faster in one request.
	blockTries = 16
)

func newBlocks(host string, s store.Shared, log *slog.Logger) *blocks {
	return &blocks{host: host, store: s, log: log, asked: make(chan blockRequest, 1024), rand: rand.IntN, freed: func(nat.Pool, uint16) {}, mine: map[string]bool{}, taken: map[string]string{}, doubt: map[string]bool{}}
}

// Lease implements nat.Leaser.
func (b *blocks) Lease(p nat.Pool, lo, hi, want uint16, done func(uint16, bool)) {
	select {
	case b.asked <- blockRequest{p, lo, hi, want, done}:
	default: // as if there were none: it is tried again
		done(0, false)
	}
}

// Release implements nat.Leaser.
func (b *blocks) Release(p nat.Pool, block uint16) {
	select {
	case b.asked <- blockRequest{pool: p, want: block}:
	default:
		b.log.Warn("a block of ports is not given back: the store is too slow", "address", p.Addr, "block", block)
	}
}

func blockPath(p nat.Pool, first uint16) string {
	return fmt.Sprintf("%s%s/%s/%d", blocksPrefix, p.Device, p.Addr, first)
}

// parseBlockPath is the inverse of blockPath.
func parseBlockPath(path string) (p nat.Pool, first uint16, err error) {
	f := strings.Split(strings.TrimPrefix(path, blocksPrefix), "/")
	if len(f) != 3 {
		return p, 0, fmt.Errorf("no path of a block: %q", path)
	}
	device, err := uuid.Parse(f[0])
	addr, err2 := netip.ParseAddr(f[1])
	n, err3 := strconv.ParseUint(f[2], 10, 16)
	if err := errors.Join(err, err2, err3); err != nil {
		return p, 0, fmt.Errorf("no path of a block: %q: %w", path, err)
	}
	return nat.Pool{Device: device, Addr: match.AddrFrom(addr)}, uint16(n), nil
}

// held lists what the host has claimed. Safe for concurrent use.
func (b *blocks) held() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own
}

// note makes the list that held gives.
func (b *blocks) note() {
	own := slices.Sorted(maps.Keys(b.mine))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own = own
}

// restore says what an earlier agent had claimed at a time: the claims outlive it, so while the store is away they can be used. Call it
// before run.
func (b *blocks) restore(paths []string, at time.Time) {
	b.spare, b.until = make(map[string]bool), at.Add(blocksTTL)
	for _, p := range paths {
		b.spare[p] = true
	}
}

// reuse leases a block that an earlier agent had claimed; 0: there is none.
func (b *blocks) reuse(r blockRequest) uint16 {
	if b.session != nil || len(b.spare) == 0 || time.Now().After(b.until) {
		return 0
	}
	for first := int(r.lo) / nat.BlockSize * nat.BlockSize; first <= int(r.hi); first += nat.BlockSize {
		path := blockPath(r.pool, uint16(first))
		if r.want != 0 && b.spare[blockPath(r.pool, r.want&^(nat.BlockSize-1))] {
			path, first = blockPath(r.pool, r.want&^(nat.BlockSize-1)), int(r.want&^(nat.BlockSize-1))
		}
		if b.spare[path] && first != 0 {
			delete(b.spare, path)
			b.mine[path] = true
			b.note()
			return uint16(first)
		}
	}
	return 0
}

// run serves requests until ctx ends.
func (b *blocks) run(ctx context.Context) error {
	for {
		err := b.serve(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.log.Warn("no ports for translation can be leased", "error", err)
		b.refuse(ctx, time.Second)
	}
}

// refuse answers for a while that there are none.
func (b *blocks) refuse(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case r := <-b.asked:
			b.refuseOne(r)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (b *blocks) refuseOne(r blockRequest) {
	if r.done != nil {
		first := b.reuse(r)
		r.done(first, first != 0)
	} else {
		delete(b.mine, blockPath(r.pool, r.want)) // its entry stays until the session is another one
	}
}

func (b *blocks) serve(ctx context.Context) error {
	if err := b.join(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := b.store.WatchShared(ctx, blocksPrefix)
	if err != nil {
		return err
	}
	b.begin()
	for synced := false; ; {
		asked := b.asked
		if !synced {
			asked = nil // first what others have
		}
		select {
		case e, ok := <-events:
			if !ok {
				return store.ErrUnavailable
			}
			b.take(e)
			if e.Synced {
				synced = true
				if err := b.clear(ctx); err != nil {
					return err
				}
			}
		case r := <-asked:
			if err := b.answer(ctx, r); err != nil {
				return err
			}
		case <-b.session.Done():
			b.session = nil
			return errors.New("the session with the store has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin is when a watch begins, which tells first what there is.
func (b *blocks) begin() { b.before, b.taken = b.taken, map[string]string{} }

// take notes who has a block.
func (b *blocks) take(e store.SharedEvent) {
	switch {
	case e.Synced:
		for _, path := range slices.Sorted(maps.Keys(b.before)) {
			if _, ok := b.taken[path]; !ok {
				b.free(path)
			}
		}
		b.before = nil
	case e.Deleted:
		delete(b.taken, e.Path)
		b.free(e.Path)
	default:
		b.taken[e.Path] = string(e.Value)
	}
}

// free tells of a block that no host has any more.
func (b *blocks) free(path string) {
	p, first, err := parseBlockPath(path)
	if err != nil {
		b.log.Warn("an entry in the store is not understood", "path", path)
		return
	}
	if !b.mine[path] { // it may have been claimed anew by then
		b.freed(p, first)
	}
}

// join begins a session, and takes what this host uses along from an earlier one.
func (b *blocks) join(ctx context.Context) error {
	if b.session != nil {
		select {
		case <-b.session.Done():
		default:
			return nil
		}
	}
	s, err := b.store.Join(ctx, blocksTTL)
	if err != nil {
		return err
	}
	b.session = s
	for _, path := range slices.Sorted(maps.Keys(b.mine)) {
		if err := s.Put(ctx, path, []byte(b.host)); err != nil {
			return err
		}
	}
	return nil
}

func (b *blocks) answer(ctx context.Context, r blockRequest) error {
	if r.done == nil {
		path := blockPath(r.pool, r.want)
		delete(b.mine, path)
		b.note()
		return b.try(path, b.session.Delete(ctx, path))
	}
	first, err := b.lease(ctx, r)
	r.done(first, err == nil && first != 0)
	return err
}

// try notes a path of which the store has not said whether it has done what was asked.
func (b *blocks) try(path string, err error) error {
	if err != nil {
		b.doubt[path] = true
	}
	return err
}

// clear gives back what this host does not use, and the store may have it use: no other host could ever.
func (b *blocks) clear(ctx context.Context) error {
	for _, path := range slices.Sorted(maps.Keys(b.doubt)) {
		if !b.mine[path] {
			if err := b.session.Delete(ctx, path); err != nil {
				return err
			}
		}
		delete(b.doubt, path)
	}
	return nil
}

// lease claims a block: the one wanted, or one at random, so that ports are hard to guess from outside (RFC 6056). 0: there is none.
func (b *blocks) lease(ctx context.Context, r blockRequest) (uint16, error) {
	lowest, n := int(r.lo)/nat.BlockSize, int(r.hi)/nat.BlockSize-int(r.lo)/nat.BlockSize+1
	start, tries := b.rand(max(n, 1)), 0
	for i := -1; i < n && tries < blockTries; i++ {
		first := uint16((lowest + (start+max(i, 0))%n) * nat.BlockSize)
		if i < 0 {
			if r.want == 0 {
				continue
			}
			first = r.want &^ (nat.BlockSize - 1)
		}
		path := blockPath(r.pool, first)
		if owner := b.taken[path]; b.mine[path] || owner != "" && owner != b.host {
			continue
		}
		mine, err := b.session.Claim(ctx, path, []byte(b.host)) // from an earlier agent of this host too
		if b.try(path, err) != nil {
			return 0, err
		}
		if mine {
			b.mine[path] = true
			b.note()
			return first, nil
		}
		b.taken[path] = "another" // the watch says who
		tries++
	}
	return 0, nil
}
