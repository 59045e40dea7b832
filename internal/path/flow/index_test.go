package flow

import (
	"testing"

	"pgregory.net/rapid"
)

// Against a slice of pairs; few hashes, so that probe sequences run into each other
// and around the end.
func TestIndexAgainstSlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type pair struct {
			h uint32
			r ref
		}
		x, pairs, last := newIndex(), []pair(nil), ref(0)
		rt.Repeat(map[string]func(*rapid.T){
			"insert": func(*rapid.T) {
				last++
				h := rapid.SampledFrom([]uint32{0, 1, 13, 14, 15, 29, 30, 31, 1 << 31}).Draw(rt, "hash")
				pairs = append(pairs, pair{h, last})
				x.insert(h, last)
			},
			"remove": func(*rapid.T) {
				if len(pairs) == 0 {
					return
				}
				i := rapid.IntRange(0, len(pairs)-1).Draw(rt, "which")
				x.remove(pairs[i].h, pairs[i].r)
				pairs = append(pairs[:i], pairs[i+1:]...)
			},
			"": func(*rapid.T) {
				if x.n != len(pairs) {
					rt.Fatalf("%d refs, want %d", x.n, len(pairs))
				}
				all := 0
				x.all(func(ref) bool { all++; return true })
				if all != len(pairs) {
					rt.Fatalf("yields %d refs of %d", all, len(pairs))
				}
				for _, p := range pairs {
					found := 0
					for i, r := x.first(p.h); r != 0; i, r = x.next(i, p.h) {
						if r == p.r {
							found++
						}
					}
					if found != 1 {
						rt.Fatalf("ref %d under hash %d is found %d times", p.r, p.h, found)
					}
				}
			},
		})
	})
}

// Never early; at most one tick late when time moves by less than the span.
func TestWheelAgainstSlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const tick = 10
		var timers [40]links
		var slots [40]uint8
		var deadline [40]int64 // 0: not waiting
		w, now := newWheel(tick, 0, func(r ref) *links { return &timers[r] }, func(r ref) *uint8 { return &slots[r] }), int64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				r := rapid.IntRange(1, 39).Draw(rt, "ref")
				if deadline[r] != 0 {
					w.remove(ref(r))
				}
				deadline[r] = now + int64(rapid.IntRange(1, tick*(wheelSlots-2)).Draw(rt, "in"))
				w.add(ref(r), deadline[r])
			},
			"remove": func(*rapid.T) {
				r := rapid.IntRange(1, 39).Draw(rt, "ref")
				if deadline[r] != 0 {
					w.remove(ref(r))
					deadline[r] = 0
				}
			},
			"time": func(*rapid.T) {
				now += int64(rapid.SampledFrom([]int{1, 7, 50, 1000, 100_000}).Draw(rt, "by"))
				for r := w.due(now); r != 0; r = w.due(now) {
					if deadline[r] == 0 || deadline[r] > now {
						rt.Fatalf("ref %d is due at %d, not at %d", r, deadline[r], now)
					}
					deadline[r] = 0
				}
				for r, d := range deadline {
					if d != 0 && d <= now-2*tick {
						rt.Fatalf("ref %d was due at %d, it is %d", r, d, now)
					}
				}
			},
		})
	})
}
