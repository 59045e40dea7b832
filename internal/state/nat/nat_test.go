package nat_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/state/nat"
)

var pool = nat.Pool{Device: uuid.UUID{1}, Addr: match.Addr{9}}

// TestLocalLeasesEachBlockOnce: within the range asked for, until there is none.
func TestLocalLeasesEachBlockOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := nat.NewLocal()
		lo := rapid.Uint16Range(1, 2000).Draw(t, "lo")
		hi := rapid.Uint16Range(lo, 4000).Draw(t, "hi")
		want := rapid.Uint16Range(lo, hi).Draw(t, "want")
		seen := map[uint16]bool{}
		for n := 0; ; n++ {
			var block uint16
			var ok bool
			l.Lease(pool, lo, hi, want, func(b uint16, o bool) { block, ok = b, o })
			if !ok {
				break
			}
			if n == 0 && block != want/nat.BlockSize*nat.BlockSize {
				t.Fatalf("block %d, want that of %d", block, want)
			}
			if seen[block] || block%nat.BlockSize != 0 || int(block)+nat.BlockSize <= int(lo) || block > hi {
				t.Fatalf("block %d of %d to %d, after %v", block, lo, hi, seen)
			}
			seen[block] = true
		}
		if want := int(hi)/nat.BlockSize - int(lo)/nat.BlockSize + 1; len(seen) != want {
			t.Fatalf("%d blocks, want %d", len(seen), want)
		}
		for b := range seen {
			l.Release(pool, b)
			l.Lease(pool, lo, hi, 0, func(again uint16, ok bool) {
				if !ok || again != b {
					t.Fatalf("given back %d, then leased %d %v", b, again, ok)
				}
			})
		}
	})
}

// slow is a Leaser that answers when it is told to.
type slow struct {
	asked    []func(uint16, bool)
	released []uint16
}

func (s *slow) Lease(_ nat.Pool, _, _, _ uint16, done func(uint16, bool)) {
	s.asked = append(s.asked, done)
}
func (s *slow) Release(_ nat.Pool, block uint16) { s.released = append(s.released, block) }

func TestOneLeaseAtATime(t *testing.T) {
	s, got := &slow{}, 0
	p := nat.New(nat.DefaultConfig(), s)
	for range 3 {
		p.Lease(pool, 1024, 65535, 0, 0, func() { got++ })
	}
	if len(s.asked) != 1 || got != 0 {
		t.Fatalf("%d asked, %d answered", len(s.asked), got)
	}
	s.asked[0](1024, true)
	if bs, exhausted := p.Blocks(pool); len(bs) != 1 || bs[0].First != 1024 || exhausted || got != 1 {
		t.Fatalf("%v %v, %d answered", bs, exhausted, got)
	}
	p.Lease(pool, 1024, 65535, 0, 0, func() { got++ })
	s.asked[1](0, false)
	if _, exhausted := p.Blocks(pool); !exhausted {
		t.Error("not exhausted")
	}
	if tags := p.Tick(int64(time.Second), nil); len(tags) != 1 || tags[0] != pool.Tag() {
		t.Errorf("changed %v", tags)
	}
	if _, exhausted := p.Blocks(pool); exhausted {
		t.Error("exhausted for ever")
	}
}

func TestIdleBlocksAreGivenBack(t *testing.T) {
	s := &slow{}
	p := nat.New(nat.DefaultConfig(), s)
	p.Lease(pool, 1024, 65535, 0, 0, func() {})
	s.asked[0](1024, true)
	p.Use(pool, 1030, 0)
	p.Tick(int64(time.Hour), nil)
	if len(s.released) != 0 {
		t.Fatal("given back while a connection has one of its ports")
	}
	p.Free(pool, 1030, int64(time.Hour))
	p.Tick(int64(time.Hour+5*time.Minute-1), nil)
	if len(s.released) != 0 {
		t.Fatal("given back early")
	}
	p.Tick(int64(time.Hour+5*time.Minute), nil)
	if bs, _ := p.Blocks(pool); len(s.released) != 1 || len(bs) != 0 {
		t.Errorf("released %v, still %v", s.released, bs)
	}
}
