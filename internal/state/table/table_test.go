package table

import (
	"encoding/binary"
	"maps"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func owner(n byte) uuid.UUID { return uuid.UUID{15: n} }

// oracle is the same table without any cleverness.
type oracle struct {
	max     int
	m       map[int]slot
	refused uint64
}

type slot struct {
	value int
	owner uuid.UUID
	refs  int
	used  int64
}

func (o *oracle) owned(id uuid.UUID) (n int) {
	for _, s := range o.m {
		if s.owner == id {
			n++
		}
	}
	return n
}

func (o *oracle) values() map[int]int {
	r := map[int]int{}
	for k, s := range o.m {
		r[k] = s.value
	}
	return r
}

func TestTableAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &oracle{max: rapid.IntRange(0, 12).Draw(t, "max"), m: map[int]slot{}}
		tb := New[int, int](o.max)
		now := int64(0)
		k := func() int { return rapid.IntRange(0, 40).Draw(t, "key") }
		own := func() uuid.UUID { return owner(rapid.Uint8Range(1, 3).Draw(t, "owner")) }
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v, id := k(), rapid.Int().Draw(t, "value"), own()
				was, had := o.m[k]
				want := had && was.owner == id || o.max == 0 || o.owned(id) < o.max
				old, hadGot, ok := tb.Put(k, v, id, now)
				if ok != want || hadGot != had || old != was.value {
					t.Fatalf("Put = %v %v %v, want %v %v %v", old, hadGot, ok, was.value, had, want)
				}
				if !want {
					o.refused++
					return
				}
				o.m[k] = slot{v, id, was.refs, now}
			},
			"ref": func(t *rapid.T) {
				k := k()
				s, had := o.m[k]
				if tb.Ref(k) != had {
					t.Fatalf("Ref(%d) = %v", k, !had)
				}
				if had {
					s.refs++
					o.m[k] = s
				}
			},
			"unref": func(t *rapid.T) {
				k := k()
				tb.Unref(k, now)
				if s, had := o.m[k]; had {
					s.refs, s.used = max(s.refs-1, 0), now
					o.m[k] = s
				}
			},
			"delete": func(t *rapid.T) {
				k := k()
				s, had := o.m[k]
				if v, ok := tb.Delete(k); ok != had || v != s.value {
					t.Fatalf("Delete(%d) = %v %v", k, v, ok)
				}
				delete(o.m, k)
			},
			"expire": func(t *rapid.T) {
				before, gone, want := now-5, map[int]int{}, map[int]int{}
				for k, s := range o.m {
					if s.refs == 0 && s.used <= before {
						want[k] = s.value
						delete(o.m, k)
					}
				}
				tb.Expire(before, func(k, v int) { gone[k] = v })
				if !maps.Equal(gone, want) {
					t.Fatalf("expired %v, want %v", gone, want)
				}
			},
			"delete owner": func(t *rapid.T) {
				id, gone, want := own(), map[int]int{}, map[int]int{}
				for k, s := range o.m {
					if s.owner == id {
						want[k] = s.value
						delete(o.m, k)
					}
				}
				tb.DeleteOwner(id, func(k, v int) { gone[k] = v })
				if !maps.Equal(gone, want) {
					t.Fatalf("deleted %v, want %v", gone, want)
				}
			},
			"time": func(t *rapid.T) { now += rapid.Int64Range(0, 4).Draw(t, "ns") },
			"": func(t *rapid.T) {
				got := map[int]int{}
				tb.Range(func(k, v int) bool { got[k] = v; return true })
				if !maps.Equal(got, o.values()) || tb.Len() != len(o.m) || tb.Refused() != o.refused {
					t.Fatalf("%v (%d, %d refused), want %v (%d refused)", got, tb.Len(), tb.Refused(), o.values(), o.refused)
				}
				for k, s := range o.m {
					if v, ok := tb.Get(k); !ok || v != s.value || tb.Held(k) != (s.refs > 0) {
						t.Fatalf("Get(%d) = %v %v, held %v, want %+v", k, v, ok, tb.Held(k), s)
					}
				}
				for _, id := range []uuid.UUID{owner(1), owner(2), owner(3)} {
					if tb.Owned(id) != o.owned(id) {
						t.Fatalf("Owned = %d, want %d", tb.Owned(id), o.owned(id))
					}
				}
			},
		})
	})
}

// TestReadersSeeWhatStays: entries that are never removed are found at all times, whatever
// writers do to others and however often the table grows.
func TestReadersSeeWhatStays(t *testing.T) {
	const stays, churn = 64, 4000
	tb := New[int, int](0)
	for k := range stays {
		tb.Put(k, k, owner(1), 0)
	}
	var readers, writers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				for k := range stays {
					if v, ok := tb.Get(k); !ok || v != k {
						t.Errorf("Get(%d) = %v, %v", k, v, ok)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range churn {
				k := stays + i*2 + w
				tb.Put(k, k, owner(2), int64(i))
				tb.Ref(k)
				tb.Unref(k, int64(i))
				if i%16 == 0 {
					tb.Expire(int64(i-8), func(int, int) {})
				}
				for k := range stays { // in use, so that they stay
					tb.Ref(k)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	tb.Expire(churn, func(int, int) {})
	if tb.Len() != stays {
		t.Errorf("%d entries, want %d", tb.Len(), stays)
	}
}

type key struct {
	id [16]byte
	n  uint64
}

func TestGetDoesNotAllocate(t *testing.T) {
	tb := New[key, [16]byte](0)
	k := key{n: 1}
	binary.BigEndian.PutUint64(k.id[:], 7)
	tb.Put(k, k.id, owner(1), 0)
	if n := testing.AllocsPerRun(100, func() { tb.Get(k); tb.Ref(k); tb.Unref(k, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	tb := New[key, [16]byte](0)
	for i := range uint64(10000) {
		tb.Put(key{n: i}, [16]byte{}, owner(1), 0)
	}
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		tb.Get(key{n: i % 10000})
		i++
	}
}
