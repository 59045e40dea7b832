// Package nat is which ports of which addresses this host may translate connections to. They are leased in
// blocks, so that hosts never use the same; the Leaser says which. A port is used again for every other
// destination: which ones are taken is known by the connections (package conntrack).
package nat

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/table"
)

// BlockSize is how many consecutive ports are leased at once; a block starts at a multiple of it.
const BlockSize = 64

// Pool is an address that a device translates to.
type Pool struct {
	Device uuid.UUID
	Addr   match.Addr
}

// Tag names the pool's leased ports.
func (p Pool) Tag() tag.Tag { return tag.Tag{Kind: tag.Ports, ID: p.Device, Addr: p.Addr} }

// Leaser gives out blocks, each to one holder at a time. Safe for concurrent use.
type Leaser interface {
	// Lease asks for one more block that has ports within lo and hi: the one that has the
	// port want, when that is not 0 and the block is free, else any. done is called once, on any
	// goroutine, also before Lease returns; ok is false when there is none.
	Lease(p Pool, lo, hi, want uint16, done func(block uint16, ok bool))
	// Release gives one back.
	Release(p Pool, block uint16)
}

// Config of Ports.
type Config struct {
	Idle  time.Duration // a block unused for so long is given back
	Retry time.Duration // between attempts to lease when all are taken
}

// DefaultConfig is 5 min, 1 s.
func DefaultConfig() Config { return Config{5 * time.Minute, time.Second} }

// Block is a leased block: ports from First on.
type Block struct {
	First uint16
	conns *atomic.Int32 // that have one of its ports
	idle  *atomic.Int64 // since when there are none
}

// Ports holds what is leased. Safe for concurrent use; Blocks takes no lock and does not
// allocate. Times are a clock's, in ns.
type Ports struct {
	cfg    atomic.Pointer[Config]
	leaser Leaser
	pools  *table.Table[Pool, *pool]
	mu     sync.Mutex
}

type pool struct {
	blocks  atomic.Pointer[[]Block] // newest first; replaced as a whole
	asking  bool                    // a lease is under way; guarded by Ports.mu
	refused atomic.Int64            // when the leaser last had none, plus 1; 0: it has not been asked, or gave one

	// conns are the connections by the block that has their port, whether it is leased or not: those of an earlier agent, and of other
	// hosts, are known before.
	conns [65536 / BlockSize]atomic.Int32
}

// add puts a block among those that are leased; with mu held.
func (x *pool) add(first uint16, now int64) {
	for _, b := range x.list() {
		if b.First == first {
			return
		}
	}
	b := Block{first, &x.conns[first/BlockSize], new(atomic.Int64)}
	b.idle.Store(now)
	x.set(append([]Block{b}, x.list()...))
}

// New makes a host's ports without any.
func New(cfg Config, l Leaser) *Ports {
	t := &Ports{leaser: l, pools: table.New[Pool, *pool](0)}
	t.cfg.Store(&cfg)
	return t
}

// Reconfigure changes the times, for blocks that are leased too.
func (t *Ports) Reconfigure(cfg Config) { t.cfg.Store(&cfg) }

// Blocks lists what is leased of a pool, newest first. exhausted: there are no more to be had.
func (t *Ports) Blocks(p Pool) (bs []Block, exhausted bool) {
	x, ok := t.pools.Get(p)
	if !ok {
		return nil, false
	}
	if b := x.blocks.Load(); b != nil {
		bs = *b
	}
	return bs, x.refused.Load() != 0
}

// Lease makes sure that one more block of a pool is being asked for. got is called when there is an answer, also
// before Lease returns: then the pool's tag has changed.
func (t *Ports) Lease(p Pool, lo, hi, want uint16, now int64, got func()) {
	x := t.pool(p, now)
	t.mu.Lock()
	busy := x.asking
	x.asking = true
	t.mu.Unlock()
	if busy {
		return
	}
	t.leaser.Lease(p, lo, hi, want, func(first uint16, ok bool) {
		t.mu.Lock()
		x.asking = false
		if ok {
			x.add(first, now)
			x.refused.Store(0)
		} else {
			x.refused.Store(now + 1)
		}
		t.mu.Unlock()
		got()
	})
}

// Resume leases the block of a port that a connection of an earlier agent has, if nobody else has it. got is as with Lease.
func (t *Ports) Resume(p Pool, port uint16, now int64, got func()) {
	x, first := t.pool(p, now), port&^(BlockSize-1)
	t.leaser.Lease(p, first, first+BlockSize-1, port, func(block uint16, ok bool) {
		if !ok {
			return // another host translates to it
		}
		t.mu.Lock()
		x.add(block, now)
		t.mu.Unlock()
		got()
	})
}

// Freed says that no host has a block any more. If connections that are known here have ports of it, as those of a VM that has moved, it is
// leased, so that nobody uses their ports for others. got is as with Lease.
func (t *Ports) Freed(p Pool, first uint16, now int64, got func()) {
	if x, ok := t.pools.Get(p); ok && x.conns[first/BlockSize].Load() > 0 {
		t.Resume(p, first, now, got)
	}
}

func (t *Ports) pool(p Pool, now int64) *pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, ok := t.pools.Get(p)
	if !ok {
		x = &pool{}
		t.pools.Put(p, x, p.Device, now)
	}
	return x
}

func (x *pool) list() []Block {
	if b := x.blocks.Load(); b != nil {
		return *b
	}
	return nil
}

func (x *pool) set(bs []Block) { x.blocks.Store(&bs) }

// Use counts a connection that has got a port, Free one that is gone, be the port leased or not.
func (t *Ports) Use(p Pool, port uint16, now int64) { t.count(p, port, 1, now) }

// Free is the counterpart of Use.
func (t *Ports) Free(p Pool, port uint16, now int64) { t.count(p, port, -1, now) }

func (t *Ports) count(p Pool, port uint16, n int32, now int64) {
	x, ok := t.pools.Get(p)
	if !ok {
		x = t.pool(p, now)
	}
	bs := x.list()
	for i := range bs {
		if b := &bs[i]; b.First == port&^(BlockSize-1) {
			b.idle.Store(now)
			break
		}
	}
	x.conns[port/BlockSize].Add(n)
}

// Tick gives back the blocks of which no connection has had a port for a while. It appends the tags of pools that may
// lease again to tags.
func (t *Ports) Tick(now int64, tags []tag.Tag) []tag.Tag {
	t.pools.Range(func(p Pool, x *pool) bool {
		if at := x.refused.Load(); at != 0 && now >= at-1+int64(t.cfg.Load().Retry) {
			x.refused.Store(0)
			tags = append(tags, p.Tag())
		}
		t.expire(p, x, now)
		return true
	})
	return tags
}

func (t *Ports) expire(p Pool, x *pool, now int64) {
	t.mu.Lock()
	var keep, gone []Block
	for _, b := range x.list() {
		if b.conns.Load() <= 0 && now >= b.idle.Load()+int64(t.cfg.Load().Idle) {
			gone = append(gone, b)
		} else {
			keep = append(keep, b)
		}
	}
	if len(gone) > 0 {
		x.set(keep)
	}
	t.mu.Unlock()
	for _, b := range gone {
		t.leaser.Release(p, b.First)
	}
}
