package conntrack

import "sync/atomic"

// ref is a place in a slab; 0 is none.
type ref uint32

const chunk = 2048 // entries that are taken at once

// slab is the memory of entries: it grows and does not shrink. Reading takes no lock, get and put are the Table's under its own.
type slab struct {
	// Slices, for an index into a pointer to an array reads the array's beginning first, lest it be nil: one more place that no cache holds.
	chunks atomic.Pointer[[][]entry]
	free   []ref
	next   ref // the last that was ever handed out
}

func (s *slab) at(r ref) *entry { return &(*s.chunks.Load())[r/chunk][r%chunk] }

func (s *slab) get() ref {
	if n := len(s.free); n > 0 {
		r := s.free[n-1]
		s.free = s.free[:n-1]
		return r
	}
	s.next++
	if p := s.chunks.Load(); p == nil || int(s.next/chunk) >= len(*p) {
		s.grow(p)
	}
	return s.next
}

func (s *slab) grow(p *[][]entry) {
	var cs [][]entry
	if p != nil {
		cs = *p
	}
	cs = append(cs, make([]entry, chunk)) // readers of the old slice do not see it
	s.chunks.Store(&cs)
}

func (s *slab) put(r ref) { s.free = append(s.free, r) }
