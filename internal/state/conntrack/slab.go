package conntrack

import "sync/atomic"

// ref is a half of an entry in a slab: twice the entry's place, and 1 for the second half. 0 is none.
type ref uint32

func (r ref) second() bool { return r%2 != 0 }

// firstRef is the first that is some.
const firstRef ref = 2

const chunk = 2048 // entries that are taken at once

// slab is the memory of entries: it grows and does not shrink. Reading takes no lock, get and put are the Table's under its own.
type slab struct {
	// Slices, for an index into a pointer to an array reads the array's beginning first, lest it be nil: one more place that no cache holds.
	chunks atomic.Pointer[[][]entry]
	free   []ref
	places ref // that were ever handed out; the first is 1
}

func (s *slab) entry(r ref) *entry { return &(*s.chunks.Load())[r/2/chunk][r/2%chunk] }

func (s *slab) at(r ref) half { return s.entry(r).half(r.second()) }

// last is the last ref of an entry that was ever handed out.
func (s *slab) last() ref { return 2*s.places + 1 }

// get takes an entry: its first half. It is put back when neither is used.
func (s *slab) get() ref {
	if n := len(s.free); n > 0 {
		r := s.free[n-1]
		s.free = s.free[:n-1]
		return r
	}
	s.places++
	if p := s.chunks.Load(); p == nil || int(s.places/chunk) >= len(*p) {
		s.grow(p)
	}
	return 2 * s.places
}

func (s *slab) grow(p *[][]entry) {
	var cs [][]entry
	if p != nil {
		cs = *p
	}
	cs = append(cs, make([]entry, chunk)) // readers of the old slice do not see it
	s.chunks.Store(&cs)
}

func (s *slab) put(r ref) { s.free = append(s.free, r&^1) }
