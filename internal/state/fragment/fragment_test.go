package fragment

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

func key(port byte, id uint32) Key {
	return Key{Port: uuid.UUID{port}, Src: match.Addr{1}, Dst: match.Addr{2}, Proto: 17, ID: id}
}

func TestFirstsAreEachPortsOwn(t *testing.T) {
	tb := New(Config{MaxPerPort: 2, Time: time.Minute})
	tb.Remember(key(1, 7), First{SrcPort: 5}, 0)
	tb.Remember(key(2, 7), First{SrcPort: 6}, 0)
	tb.Remember(key(2, 8), First{SrcPort: 6}, 0)
	tb.Remember(key(2, 9), First{SrcPort: 6}, 0) // fills its own bound: its oldest goes
	if f, ok := tb.Lookup(key(1, 7)); !ok || f.SrcPort != 5 {
		t.Errorf("port 1: %v %v", f, ok)
	}
	if _, ok := tb.Lookup(key(2, 7)); ok {
		t.Error("port 2 has more than its bound")
	}
	tb.Forget(uuid.UUID{1})
	if _, ok := tb.Lookup(key(1, 7)); ok || tb.Len() != 2 {
		t.Errorf("after Forget: %d", tb.Len())
	}
}

func TestFirstsAreForgotten(t *testing.T) {
	tb := New(DefaultConfig())
	const s = int64(time.Second)
	tb.Remember(key(1, 7), First{}, 0)
	tb.Remember(key(1, 8), First{}, 0)
	tb.Remember(key(1, 7), First{}, 30*s) // the identification is used again
	tb.Tick(60 * s)
	if _, ok := tb.Lookup(key(1, 8)); ok {
		t.Error("still there after 60 s")
	}
	if _, ok := tb.Lookup(key(1, 7)); !ok {
		t.Error("gone after 30 s")
	}
	if tb.Tick(90 * s); tb.Len() != 0 {
		t.Errorf("%d left", tb.Len())
	}
}

func TestAwait(t *testing.T) {
	tb := New(DefaultConfig())
	if tb.Await(key(1, 7), 0) {
		t.Error("known before it came")
	}
	if _, ok := tb.Lookup(key(1, 7)); ok {
		t.Error("found before it came")
	}
	if !tb.Remember(key(1, 7), First{}, 0) {
		t.Error("nobody seems to wait")
	}
	if tb.Remember(key(1, 7), First{}, 0) {
		t.Error("somebody still waits")
	}
	if !tb.Await(key(1, 7), 0) {
		t.Error("not known although it came")
	}
}

// TestAgainstList: the same as a plain list in order of arrival.
func TestAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const life = int64(20)
		max := rapid.SampledFrom([]int{4, 80}).Draw(t, "max") // 80: more than a chunk
		tb := New(Config{MaxPerPort: max, Time: time.Duration(life)})
		type item struct {
			id    uint32
			port  uint16
			since int64
		}
		var list []item
		drop := func(id uint32) {
			for i, x := range list {
				if x.id == id {
					list = append(list[:i:i], list[i+1:]...)
					return
				}
			}
		}
		now := int64(0)
		for range 15 * max {
			id := rapid.Uint32Range(0, uint32(max)+2).Draw(t, "id")
			if rapid.Bool().Draw(t, "first") {
				p := rapid.Uint16().Draw(t, "port")
				tb.Remember(key(1, id), First{SrcPort: p}, now)
				if drop(id); len(list) == max {
					list = list[1:]
				}
				list = append(list, item{id, p, now})
			}
			now += rapid.Int64Range(0, 3).Draw(t, "time") * 4 / int64(max)
			tb.Tick(now)
			for len(list) > 0 && now-list[0].since >= life {
				list = list[1:]
			}
			if tb.Len() != len(list) {
				t.Fatalf("%d, want %d", tb.Len(), len(list))
			}
			for _, x := range list {
				if f, ok := tb.Lookup(key(1, x.id)); !ok || f.SrcPort != x.port {
					t.Fatalf("%d: %v %v, want %d", x.id, f, ok, x.port)
				}
			}
		}
	})
}

// A port that sends the first fragments of ever new datagrams takes no more memory than its bound.
func TestNoAllocationAtTheBound(t *testing.T) {
	tb := New(DefaultConfig())
	id := uint32(0)
	next := func() { tb.Remember(key(1, id), First{}, 0); id++ }
	for range 2 * DefaultConfig().MaxPerPort {
		next()
	}
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Errorf("%v allocations for each datagram", n)
	}
}
