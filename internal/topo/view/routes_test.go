package view

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func prefixes(ss ...string) *rapid.Generator[netip.Prefix] {
	return rapid.Map(rapid.SampledFrom(ss), func(s string) netip.Prefix {
		if s == "" {
			return netip.Prefix{}
		}
		return netip.MustParsePrefix(s)
	})
}

func addrs(ss ...string) *rapid.Generator[netip.Addr] {
	return rapid.Map(rapid.SampledFrom(ss), netip.MustParseAddr)
}

var (
	dsts4 = prefixes("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.168.0.0/16")
	dsts6 = prefixes("::/0", "fd00::/8", "fd00:1::/32", "fd00:1::1/128")
	srcs4 = prefixes("", "0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.9.9/32")
	srcs6 = prefixes("", "::/0", "fd00::/8", "fd00:9::/32")
	ask4  = addrs("10.1.2.3", "10.1.2.4", "10.1.9.9", "10.2.2.2", "192.168.3.4", "8.8.8.8", "10.9.9.9", "10.9.1.1")
	ask6  = addrs("fd00:1::1", "fd00:1::2", "fd00:2::1", "2001:db8::1", "fd00:9::9")
)

// candidates is what Lookup may answer, by looking at every route.
func candidates(rs []Route, dst, src netip.Addr) []Route {
	var best []Route
	for _, r := range rs {
		if !r.Dst.Contains(dst) || r.Src.Bits() > 0 && !r.Src.Contains(src) {
			continue
		}
		if len(best) > 0 {
			b := best[0]
			switch {
			case r.Dst.Bits() != b.Dst.Bits():
				if r.Dst.Bits() < b.Dst.Bits() {
					continue
				}
				best = nil
			case max(r.Src.Bits(), 0) != max(b.Src.Bits(), 0):
				if r.Src.Bits() < b.Src.Bits() {
					continue
				}
				best = nil
			case r.Weight != b.Weight:
				if r.Weight > b.Weight {
					continue
				}
				best = nil
			}
		}
		best = append(best, r)
	}
	return best
}

func TestLookupAgainstLinearSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		route := rapid.Custom(func(t *rapid.T) Route {
			r := Route{ID: uuid.UUID{15: rapid.Byte().Draw(t, "id")}, Weight: rapid.IntRange(0, 1).Draw(t, "weight")}
			if rapid.Bool().Draw(t, "six") {
				r.Dst, r.Src = dsts6.Draw(t, "dst"), srcs6.Draw(t, "src")
			} else {
				r.Dst, r.Src = dsts4.Draw(t, "dst"), srcs4.Draw(t, "src")
			}
			return r
		})
		rs := rapid.SliceOfN(route, 0, 12).Draw(t, "routes")
		table := NewRouteTable(rs)
		for range 20 {
			ask := ask4
			if rapid.Bool().Draw(t, "ask six") {
				ask = ask6
			}
			dst, src, hash := ask.Draw(t, "dst"), ask.Draw(t, "src"), rapid.Uint32().Draw(t, "hash")
			want := candidates(rs, dst, src)
			got, ok := table.Lookup(dst, src, hash)
			if ok != (len(want) > 0) {
				t.Fatalf("%s from %s: found %v, want one of %v", dst, src, got, want)
			}
			if !ok {
				continue
			}
			found := false
			for _, w := range want {
				found = found || w == *got
			}
			if !found {
				t.Fatalf("%s from %s: %v, want one of %v", dst, src, *got, want)
			}
			if again, _ := NewRouteTable(rs).Lookup(dst, src, hash); *again != *got {
				t.Fatalf("another table of the same routes decides %v, not %v", *again, *got)
			}
		}
	})
}

// TestEqualRoutesShare adds a route to equal ones: all are used, and only what the new one takes moves.
func TestEqualRoutesShare(t *testing.T) {
	all := netip.MustParsePrefix("0.0.0.0/0")
	var rs []Route
	for i := range byte(4) {
		rs = append(rs, Route{ID: uuid.UUID{15: i + 1}, Dst: all, Weight: 100})
	}
	three, four := NewRouteTable(rs[:3]), NewRouteTable(rs)
	a := netip.MustParseAddr("192.0.2.1")
	used := map[uuid.UUID]int{}
	rng := rand.New(rand.NewPCG(1, 2))
	const flows = 4000
	for range flows {
		h := rng.Uint32()
		before, _ := three.Lookup(a, a, h)
		after, _ := four.Lookup(a, a, h)
		used[after.ID]++
		if after.ID != before.ID && after.ID != rs[3].ID {
			t.Fatalf("a flow moved from %s to %s", before.ID, after.ID)
		}
	}
	for _, r := range rs {
		if n := used[r.ID]; n < flows/8 || n > flows/2 {
			t.Errorf("route %s has %d of %d flows", r.ID, n, flows)
		}
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table, dst, src := benchTable()
	if n := testing.AllocsPerRun(100, func() { table.Lookup(dst, src, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchTable() (RouteTable, netip.Addr, netip.Addr) {
	var rs []Route
	for i := range 10000 {
		rs = append(rs, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Weight: i & 1})
	}
	for i := range byte(4) {
		rs = append(rs, Route{ID: uuid.UUID{i}, Dst: netip.MustParsePrefix("10.1.0.0/16")})
	}
	return NewRouteTable(rs), netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("10.2.2.2")
}

func BenchmarkLookup(b *testing.B) {
	table, dst, src := benchTable()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Lookup(dst, src, uint32(i))
	}
}
