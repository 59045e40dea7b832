package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// leasing is a host that leases blocks.
type leasing struct {
	*blocks
	t    *testing.T
	stop func()
}

func newLeasing(t *testing.T, c *mem.Store, host string) *leasing {
	b := newBlocks(host, c, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.run(ctx) })
	l := &leasing{b, t, func() { cancel(); wg.Wait() }}
	t.Cleanup(l.stop)
	return l
}

var pool = nat.Pool{Device: ids(5), Addr: match.Addr{10: 0xff, 11: 0xff, 12: 203, 15: 1}}

// lease asks until there is an answer that is not "not now".
func (l *leasing) lease(lo, hi, want uint16) (block uint16, ok bool) {
	l.t.Helper()
	type answer struct {
		block uint16
		ok    bool
	}
	got := make(chan answer, 1)
	l.Lease(pool, lo, hi, want, func(b uint16, ok bool) { got <- answer{b, ok} })
	select {
	case a := <-got:
		return a.block, a.ok
	case <-time.After(time.Minute):
		l.t.Fatal("no answer")
		return 0, false
	}
}

// Two hosts that lease all there is share nothing.
func TestBlocks(t *testing.T) {
	srv := mem.NewServer()
	hosts := []*leasing{newLeasing(t, srv.Client(), "a"), newLeasing(t, srv.Client(), "b")}
	const lo, blocks = 1024, 40
	const hi = lo + blocks*nat.BlockSize - 1
	owner := map[uint16]string{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, h := range hosts {
		wg.Go(func() {
			for misses := 0; misses < 3; { // a race that is lost counts as one
				b, ok := h.lease(lo, hi, 0)
				if !ok {
					misses++
					continue
				}
				mu.Lock()
				if b < lo || b > hi || b%nat.BlockSize != 0 || owner[b] != "" {
					t.Errorf("%s was given block %d, which %q has", h.host, b, owner[b])
				}
				owner[b] = h.host
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(owner) != blocks {
		t.Errorf("%d of %d blocks were leased", len(owner), blocks)
	}
	// What is given back is for anybody.
	var back uint16
	from, to := hosts[0], hosts[1]
	for b, h := range owner { // one host may have been faster with all of them
		if back = b; h == hosts[1].host {
			from, to = to, from
		}
		break
	}
	from.Release(pool, back)
	for end := time.Now().Add(time.Minute); ; {
		if b, ok := to.lease(lo, hi, 0); ok {
			if b != back {
				t.Errorf("block %d, want %d", b, back)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("what was given back is not to be had")
		}
	}
}

// A host that begins anew has what it had; others have not.
func TestBlocksOfAnEarlierAgent(t *testing.T) {
	srv := mem.NewServer()
	first, other := newLeasing(t, srv.Client(), "a"), newLeasing(t, srv.Client(), "b")
	had, ok := first.lease(1024, 65535, 0)
	if !ok {
		t.Fatal("no block")
	}
	first.stop()
	if got, ok := other.lease(1024, 65535, had+7); !ok || got == had {
		t.Errorf("another host was given %d, %v", got, ok)
	}
	next := newLeasing(t, srv.Client(), "a")
	if got, ok := next.lease(1024, 65535, had+7); !ok || got != had {
		t.Errorf("the next agent was given %d, %v; want %d", got, ok, had)
	}
	if got, ok := next.lease(1024, 65535, had+7); !ok || got == had {
		t.Errorf("a block that it uses already: %d, %v", got, ok)
	}
}

// Without the store there are no new blocks, and no waiting; afterwards there are, and the old ones are still the host's.
func TestBlocksAway(t *testing.T) {
	srv := mem.NewServer()
	c := srv.Client()
	a := newLeasing(t, c, "a")
	had, ok := a.lease(1024, 65535, 0)
	if !ok {
		t.Fatal("no block")
	}
	c.Disconnect()
	c.Expire()
	if _, ok := a.lease(1024, 65535, 0); ok {
		t.Error("leased from nobody")
	}
	c.Reconnect()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, ok := a.lease(1024, 65535, 0); ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the store is back, and no block is to be had")
		}
	}
	other := newLeasing(t, srv.Client(), "b")
	if got, ok := other.lease(1024, 65535, had); !ok || got == had {
		t.Errorf("another host was given %d, %v", got, ok)
	}
}

// unsure is a session that does what it is asked, and says that it could not.
type unsure struct {
	store.Session
	is bool
}

func (x *unsure) Claim(ctx context.Context, path string, value []byte) (bool, error) {
	mine, err := x.Session.Claim(ctx, path, value)
	if x.is {
		return false, store.ErrUnavailable
	}
	return mine, err
}

// A block that was claimed, without the host being told, does not stay claimed for ever.
func TestBlockInDoubt(t *testing.T) {
	srv := mem.NewServer()
	b := newBlocks("a", srv.Client(), slog.New(slog.DiscardHandler))
	if err := b.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.session = &unsure{b.session, true}
	refused := false
	err := b.answer(t.Context(), blockRequest{pool: pool, lo: 1024, hi: 65535, done: func(_ uint16, ok bool) { refused = !ok }})
	if err == nil || !refused {
		t.Fatal("it knows", err, refused)
	}
	entries := func() (n int) {
		events, err := srv.Client().WatchShared(t.Context(), blocksPrefix)
		if err != nil {
			t.Fatal(err)
		}
		for e := range events {
			if e.Synced {
				return n
			}
			n++
		}
		return -1
	}
	if n := entries(); n != 1 {
		t.Fatalf("%d blocks", n)
	}
	if err := b.clear(t.Context()); err != nil || entries() != 0 {
		t.Errorf("%v, %d blocks", err, entries())
	}
}

// A connection has moved to another host, and its first host gives the block of its port back: the other one takes it, for as long as the
// connection is there, so that nobody translates anything else to that port; also if it does not hear of it at once.
func TestBlockOfMovedConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		deaf bool
	}{{"told", false}, {"told in the next watch", true}} {
		t.Run(c.name, func(t *testing.T) {
			srv := mem.NewServer()
			first := newLeasing(t, srv.Client(), "a")
			block, ok := first.lease(1024, 9999, 0)
			if !ok {
				t.Fatal("no block")
			}
			client := srv.Client()
			b := newBlocks("b", client, slog.New(slog.DiscardHandler))
			cfg := state.DefaultConfig()
			cfg.Leaser = b
			tables := state.New(cfg, clock.NewSystem())
			b.freed = func(p nat.Pool, n uint16) { tables.PortsFreed(p, n, func(tag.Tag) {}) }
			to := match.Tuple{Src: match.Addr{15: 1}, Dst: match.Addr{15: 2}, SrcPort: 4000, DstPort: 80, Proto: 6}
			tables.MergeConnection(conntrack.Conn{Kind: tag.Translation, Device: pool.Device, Orig: to,
				Reply: match.Tuple{Src: to.Dst, Dst: pool.Addr, SrcPort: 80, DstPort: block + 3, Proto: 6}}, 0, nil)
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { _ = b.run(ctx) })
			t.Cleanup(func() { cancel(); wg.Wait() })
			second := &leasing{b, t, cancel}
			if _, ok := second.lease(20000, 65535, 0); !ok { // it knows who has what
				t.Fatal("no block")
			}
			if c.deaf {
				client.Disconnect()
			}
			first.Release(pool, block)
			for range 2 { // the first is done when the second is; neither may be the block again
				first.lease(20000, 65535, 0)
			}
			if c.deaf {
				client.Reconnect()
			}
			for end := time.Now().Add(time.Minute); !slices.Contains(b.held(), blockPath(pool, block)); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the block is nobody's: %v", b.held())
				}
			}
			if got, ok := first.lease(1024, 65535, block); !ok || got == block {
				t.Errorf("the first host was given %d, %v", got, ok)
			}
		})
	}
}
