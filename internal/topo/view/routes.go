package view

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// routes is the RouteTable of a Router: a trie of destinations, each with its choices by source.
type routes struct {
	trie bart.Table[*destination]
}

// destination holds the routes of one destination prefix.
type destination struct {
	choices []choice     // longest source first
	shorter *destination // the next shorter prefix that has routes; nil: none
}

// choice holds the routes of one destination and one source prefix that have the lowest weight.
type choice struct {
	any    bool // source of length 0
	source netip.Prefix
	equal  []hop
}

// hop is a route with its identity among equal ones.
type hop struct {
	route *Route
	key   uint32
}

// NewRouteTable makes a table of rs, which it copies. Routes without a valid destination are left out.
// Of several routes for the same destination and source, those of the lowest weight share the connections.
func NewRouteTable(rs []Route) RouteTable {
	own := slices.DeleteFunc(slices.Clone(rs), func(r Route) bool { return !r.Dst.IsValid() })
	for i := range own {
		own[i].Dst, own[i].Src = own[i].Dst.Masked(), own[i].Src.Masked()
	}
	// Shorter destinations come first, so that each finds the one it falls back to.
	slices.SortStableFunc(own, func(a, b Route) int {
		return cmp.Or(
			cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), a.Dst.Addr().Compare(b.Dst.Addr()),
			-cmp.Compare(sourceBits(a), sourceBits(b)), sourceAddr(a).Compare(sourceAddr(b)),
			cmp.Compare(a.Weight, b.Weight))
	})
	t := new(routes)
	for i := 0; i < len(own); {
		d := new(destination)
		d.shorter, _ = t.trie.Lookup(own[i].Dst.Addr())
		dst := own[i].Dst
		for ; i < len(own) && own[i].Dst == dst; i++ {
			d.add(&own[i])
		}
		t.trie.Insert(dst, d)
	}
	return t
}

// sourceBits is how narrow a route's source is; any and a prefix of length 0 are the same.
func sourceBits(r Route) int { return max(r.Src.Bits(), 0) }

func sourceAddr(r Route) netip.Addr {
	if sourceBits(r) == 0 {
		return netip.Addr{}
	}
	return r.Src.Addr()
}

// add takes the next route in the order of NewRouteTable.
func (d *destination) add(r *Route) {
	h := hop{route: r, key: identity(r)}
	if n := len(d.choices); n > 0 {
		last := &d.choices[n-1]
		if last.any && sourceBits(*r) == 0 || !last.any && last.source == r.Src {
			if last.equal[0].route.Weight == r.Weight {
				last.equal = append(last.equal, h)
			}
			return
		}
	}
	d.choices = append(d.choices, choice{any: sourceBits(*r) == 0, source: r.Src, equal: []hop{h}})
}

// identity tells equal routes apart, the same in every run and on every host.
func identity(r *Route) uint32 {
	h := fnv.New32a()
	h.Write(r.ID[:])
	h.Write(r.Port[:])
	gw := r.Gateway.As16()
	if r.Gateway.IsValid() {
		h.Write(gw[:])
	}
	var w [8]byte
	binary.LittleEndian.PutUint64(w[:], uint64(r.NextHop))
	h.Write(w[:])
	return h.Sum32()
}

// Lookup implements RouteTable. A source that fits none of the routes of the longest destination falls
// back to the next shorter one.
func (t *routes) Lookup(dst, src netip.Addr, hash uint32) (*Route, bool) {
	d, ok := t.trie.Lookup(dst)
	if !ok {
		return nil, false
	}
	for ; d != nil; d = d.shorter {
		for i := range d.choices {
			if c := &d.choices[i]; c.any || c.source.Contains(src) {
				return pick(c.equal, hash), true
			}
		}
	}
	return nil, false
}

// pick is rendezvous hashing: when a route comes or goes, only the connections that it gains or
// loses change their path.
func pick(hs []hop, hash uint32) *Route {
	best, most := hs[0].route, mix(hs[0].key, hash)
	for _, h := range hs[1:] {
		if m := mix(h.key, hash); m > most {
			best, most = h.route, m
		}
	}
	return best
}

// mix is the finalizer of splitmix64 over both halves.
func mix(key, hash uint32) uint64 {
	z := uint64(key)<<32 | uint64(hash)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
