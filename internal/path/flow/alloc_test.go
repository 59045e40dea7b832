package flow

import (
	"fmt"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// sink is a datapath that takes everything and remembers nothing.
type sink struct{}

func (sink) PutFlows(fs []datapath.Flow) (int, error) { return len(fs), nil }
func (sink) DelFlows([]match.Key) error               { return nil }

var natted = action.Physical{{Op: action.SetEthSrc}, {Op: action.SetEthDst}, {Op: action.SetSrc}, {Op: action.SetSrcPort}, {Op: action.DecTTL}, {Op: action.Output, Port: 2}}

// Every packet the first of its connection, in a table that is full: lookups that
// miss, an entry, its flow, tags, evictions, expiry, invalidation, install. No allocation.
func TestNoAllocationInSteadyState(t *testing.T) {
	clk := new(clock.Manual)
	tb := New(Config{MaxFlows: 2000}, sink{}, clk)
	ts := []tag.Tag{{Kind: tag.Device}, {Kind: tag.Port, N: 1}, {Kind: tag.Route}}
	n := 0
	step := func() {
		n++
		clk.Advance(5 * time.Millisecond)
		if n%3000 == 0 {
			clk.Advance(time.Minute)
		}
		k := key(uint32(1+n%5), n)
		if _, ok := tb.Exact(k); !ok {
			if _, ok := tb.Wildcard(k); !ok {
				ts[2].N = uint32(n % 100)
				as := natted
				if n%2 == 0 {
					as = natted[2:]
				}
				tb.Add(k, match.SrcPort|match.DstPort, as, ts, Kind(n)%kinds)
			}
		}
		k.Proto = 17
		if e, ok := tb.Wildcard(k); ok {
			tb.Install(k, e)
		}
		tb.Used(k, 0, 1, 1)
		tb.Tend(8)
		if n%101 == 0 {
			tb.Invalidate(ts[2].Hash())
		}
		if n%16 == 0 {
			_ = tb.Flush()
		}
		if n%500 == 0 {
			tb.InvalidatePort(2)
		}
	}
	for range 50_000 {
		step()
	}
	if a := testing.AllocsPerRun(20_000, step); a != 0 {
		t.Errorf("%v allocations per packet, want 0", a)
	}
	if s := tb.Stats(); s.Evicted == 0 || s.Expired == 0 || s.Invalidated == 0 {
		t.Errorf("not everything was exercised: %+v", s)
	}
}

// A table that grows takes next to nothing from Go's heap: who does so while the garbage collector marks may have to wait for it.
func TestGrowthIsNotTheCollectors(t *testing.T) {
	const n, most = 50_000, 128 << 10 // flows, bytes: what small tables begin with, and lists of chunks
	tb := New(Config{MaxFlows: n, Idle: time.Hour}, sink{}, new(clock.Manual))
	ts := []tag.Tag{{Kind: tag.Device}, {Kind: tag.Port, N: 1}, {Kind: tag.Route}, {Kind: tag.Connection}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		ts[2].N, ts[3].N = uint32(i%1000), uint32(i)
		tb.Add(key(1, i), match.SrcPort|match.DstPort|match.Src, natted[i%len(natted):], ts, Normal)
		if i%64 == 63 {
			_ = tb.Flush()
		}
	}
	for k := range tb.Flows() { // what was put back must have a place, too
		tb.InvalidatePort(k.Key.InPort)
		break
	}
	for tb.Tend(64) {
		_ = tb.Flush()
	}
	runtime.ReadMemStats(&after)
	if s := tb.Stats(); s.Flows != 0 || s.Invalidated == 0 {
		t.Errorf("not everything was exercised: %+v", s)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > most && !offheap.OnHeap {
		t.Errorf("%d flows took %d bytes of Go's heap, more than %d", n, got, most)
	}
}

func fill(b *testing.B, n int) *Table {
	tb := New(Config{MaxFlows: n, Idle: time.Hour}, sink{}, clock.NewSystem())
	ts := []tag.Tag{{Kind: tag.Device}, {Kind: tag.Port}, {Kind: tag.Route}}
	for i := range n {
		ts[1].N, ts[2].N = uint32(i%100), uint32(i%1000)
		tb.Add(key(uint32(1+i%100), i), match.All, natted[:4], ts, Normal)
	}
	if err := tb.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return tb
}

func sizes(b *testing.B, fn func(*testing.B, *Table, int)) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { fn(b, fill(b, n), n) })
	}
}

func BenchmarkExact(b *testing.B) {
	sizes(b, func(b *testing.B, t *Table, n int) {
		for i := range b.N {
			i = i * 7919 % n
			if _, ok := t.Exact(key(uint32(1+i%100), i)); !ok {
				b.Fatal("missed")
			}
		}
	})
}

func BenchmarkWildcardOneMask(b *testing.B) {
	sizes(b, func(b *testing.B, t *Table, n int) {
		for i := range b.N {
			i = i * 7919 % n
			if _, ok := t.Wildcard(key(uint32(1+i%100), i)); !ok {
				b.Fatal("missed")
			}
		}
	})
}

// The worst that a tenant can do to its own packets: 64 masks, none of which matches.
func BenchmarkWildcardMiss64Masks(b *testing.B) {
	t := New(Config{}, sink{}, clock.NewSystem())
	for i := range 64 {
		t.Add(key(1, i), match.Mask(i)<<1|match.SrcPort, nil, nil, Drop)
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Wildcard(key(1, 1000))
	}
}

// A new connection in a full table: one goes for each that comes.
func BenchmarkAddWhenFull(b *testing.B) {
	sizes(b, func(b *testing.B, t *Table, n int) {
		ts := []tag.Tag{{Kind: tag.Device}, {Kind: tag.Port}, {Kind: tag.Route}}
		for i := range b.N {
			ts[1].N, ts[2].N = uint32(i%100), uint32(i%1000)
			t.Add(key(uint32(1+i%100), n+i), match.All, natted[:4], ts, Normal)
			if i%64 == 0 {
				_ = t.Flush()
			}
		}
	})
}

// One thing changes that a thousandth of all flows depend on; they are decided anew.
func BenchmarkInvalidate(b *testing.B) {
	sizes(b, func(b *testing.B, t *Table, n int) {
		ts := []tag.Tag{{Kind: tag.Device}, {Kind: tag.Port}, {Kind: tag.Route}}
		for i := range b.N {
			r := uint32(i % 1000)
			ts[2].N = r
			t.Invalidate(ts[2].Hash())
			_ = t.Flush()
			b.StopTimer()
			for j := int(r); j < n; j += 1000 {
				ts[1].N = uint32(j % 100)
				t.Add(key(uint32(1+j%100), j), match.All, natted[:4], ts, Normal)
			}
			_ = t.Flush()
			b.StartTimer()
		}
	})
}

// What the documentation says of memory. None of it has pointers: the garbage collector does not look at a million flows.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		what string
		v    any
		max  uintptr
	}{{"entry", entry{}, 136}, {"exact flow", exact{}, 112}, {"tag", tagRef{}, 20}, {"list of actions", listHead{}, 16}, {"cell", cell{}, 32}, {"kept tag", keptTag{}, 80}, {"set", tagSet{}, 44}} {
		ty := reflect.TypeOf(c.v)
		if ty.Size() > c.max {
			t.Errorf("an %s takes %d bytes, more than %d", c.what, ty.Size(), c.max)
		}
		if pointers(ty) {
			t.Errorf("an %s has pointers", c.what)
		}
	}
}

func pointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if pointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return pointers(t.Elem())
	}
	return t.Kind() > reflect.Complex128
}
