package pathtest

import (
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Routes implements view.RouteTable by looking at every route: slow, and obviously right.
type Routes struct{ all []view.Route }

func (r *Routes) add(rt view.Route) { r.all = append(r.all, rt) }

// Lookup implements view.RouteTable.
func (r *Routes) Lookup(dst, src netip.Addr, hash uint32) (*view.Route, bool) {
	var best *view.Route
	ties := 0
	for i := range r.all {
		rt := &r.all[i]
		if !rt.Dst.Contains(dst) || rt.Src.IsValid() && !rt.Src.Contains(src) {
			continue
		}
		switch d := order(rt, best); {
		case d > 0:
			best, ties = rt, 1
		case d == 0:
			ties++
		}
	}
	if ties < 2 {
		return best, best != nil
	}
	n := int(hash) % ties
	for i := range r.all {
		rt := &r.all[i]
		if !rt.Dst.Contains(dst) || rt.Src.IsValid() && !rt.Src.Contains(src) || order(rt, best) != 0 {
			continue
		}
		if n == 0 {
			return rt, true
		}
		n--
	}
	return best, true
}

// order is positive when a goes before b.
func order(a, b *view.Route) int {
	if b == nil {
		return 1
	}
	if d := a.Dst.Bits() - b.Dst.Bits(); d != 0 {
		return d
	}
	if d := srcBits(a) - srcBits(b); d != 0 {
		return d
	}
	return b.Weight - a.Weight
}

func srcBits(r *view.Route) int {
	if r.Src.IsValid() {
		return r.Src.Bits()
	}
	return 0
}
