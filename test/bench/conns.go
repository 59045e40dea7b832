package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

const (
	few  = 1_000
	many = 1_000_000
)

// What conntrack has of each connection: an entry, and slots of the index, a power of two at most three quarters of which are used.
const entryBytes, slotBytes = 128, 16

// connections measures what an established connection takes in the state tables of an agent when there are a million, each
// tracked at one port, and how long it takes to find one among them, and among a thousand. What of that is the cache's: a slot of
// the index and the entry that it leads to are read. So the peer of conn_lookup_cache_ns is a lookup among a thousand, and what two such reads of plain
// memory take longer in as much of it as a million have than in that of a thousand.
func connections(_ context.Context, b *bench) error {
	var bytes, fewNS, manyNS, cacheNS []float64
	for range b.rounds {
		before := heap()
		t, err := established(many)
		if err != nil {
			return err
		}
		bytes = append(bytes, float64(heap()-before)/many)
		manyNS = append(manyNS, lookups(t, many))
		runtime.KeepAlive(t)
		t, err = established(few)
		if err != nil {
			return err
		}
		among := lookups(t, few)
		fewNS = append(fewNS, among)
		cacheNS = append(cacheNS, among+reads(many)-reads(few))
	}
	among := median(manyNS)
	b.emit(figure("conn_bytes", median(bytes), "bytes"), figure("conn_lookup_ns", among, "ns").against(median(fewNS)),
		figure("conn_lookup_cache_ns", among, "ns").against(median(cacheNS)))
	return nil
}

// reads is the time of a read of an index of n connections and one of the entry that it leads to, each at a place that the one before tells.
func reads(n int) float64 {
	index, entries := make([]uint64, n*slotBytes/8), make([]uint64, n*entryBytes/8)
	for _, a := range [...][]uint64{index, entries} {
		for i := range a {
			a[i] = uint64(i) // memory that was never written is one page of zeros
		}
	}
	const rounds = 2_000_000
	at := uint64(1)
	took := cpu(func() {
		for i := range uint64(rounds) { // another way each time: no circle
			at = (index[at%uint64(len(index))] + i) * 0x9e3779b97f4a7c15 >> 8
			at = (entries[at%uint64(len(entries))] + i) * 0x9e3779b97f4a7c15 >> 8
		}
	})
	runtime.KeepAlive(at)
	return float64(took) / rounds
}

// cpu is the CPU time of f: others on the machine cost it no more than what they do to the cache.
func cpu(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() int64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			panic(err) // there is no such clock: not Linux
		}
		return t.Nano()
	}
	start := now()
	f()
	return time.Duration(now() - start)
}

// heap is what is in use of Go's heap, and of the tables beside it.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + offheap.Mapped()
}

// established has n TCP connections of a thousand ports, each answered.
func established(n int) (*state.Tables, error) {
	cfg := state.DefaultConfig()
	cfg.Conntrack.MaxPerOwner = 0
	t := state.New(cfg, clock.NewSystem())
	for i := range n {
		port, tu := connection(i)
		c := conntrack.Conn{Kind: tag.Connection, Device: port, Orig: tu, Reply: tu.Reverse(), Owner: port}
		if t.AddConnection(c) != conntrack.Added {
			return nil, errors.New("a connection is refused")
		}
		t.ConnectionReplied(tag.Of(c.Kind, c.Device, &c.Reply))
	}
	return t, nil
}

func connection(i int) (port uuid.UUID, t match.Tuple) {
	binary.BigEndian.PutUint32(port[12:], uint32(i%1000))
	t = match.Tuple{SrcPort: uint16(i/1000) + 1024, DstPort: 443, Proto: 6}
	t.Src, t.Dst = match.Addr{10: 0xff, 11: 0xff, 12: 10}, match.Addr{10: 0xff, 11: 0xff, 12: 192, 15: 80}
	binary.BigEndian.PutUint16(t.Src[14:], uint16(i%1000))
	return port, t
}

// lookups is the time of one, over connections in random order; what it takes to choose them is taken off.
func lookups(t *state.Tables, n int) float64 {
	const rounds = 2_000_000
	found := 0
	run := func(ask bool) time.Duration {
		r := rand.New(rand.NewPCG(1, 2))
		return cpu(func() {
			for range rounds {
				port, tu := connection(r.IntN(n))
				if !ask {
					found += int(tu.SrcPort) & int(port[15])
				} else if _, _, _, ok := t.Connection(tag.Connection, port, &tu); ok {
					found++
				}
			}
		})
	}
	empty := run(false)
	return float64(run(true)-empty) / rounds
}
