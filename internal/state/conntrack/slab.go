package conntrack

import (
	"sync/atomic"

	"github.com/viaduct-net/viaduct/internal/base/offheap"
)

// ref is a half of an entry in a slab: twice the entry's place, and 1 for the second half. 0 is none.
type ref uint32

func (r ref) second() bool { return r%2 != 0 }

// firstRef is the first that is some.
const firstRef ref = 2

const chunk = 2048 // entries that are taken at once

// slab is the memory of entries: it grows and does not shrink. Reading takes no lock, get and put are the Table's under its own. The memory is not the garbage
// collector's (offheap): the Table must stay reachable while an entry is read.
type slab struct {
	// Slices, for an index into a pointer to an array reads the array's beginning first, lest it be nil: one more place that no cache holds.
	chunks atomic.Pointer[[][]entry]
	mem    offheap.Memory
	free   []*[chunk]ref // room for as many as there are entries, so that putting back takes no memory
	spare  ref           // how many of free were put back
	places ref           // that were ever handed out; the first is 1
}

// block is what is taken at once. The entries are whole cache lines, as it begins at a page.
type block struct {
	entries [chunk]entry
	free    [chunk]ref
}

func (s *slab) entry(r ref) *entry { return &(*s.chunks.Load())[r/2/chunk][r/2%chunk] }

func (s *slab) at(r ref) half { return s.entry(r).half(r.second()) }

// last is the last ref of an entry that was ever handed out.
func (s *slab) last() ref { return 2*s.places + 1 }

// get takes an entry: its first half. It is put back when neither is used.
func (s *slab) get() ref {
	if s.spare > 0 {
		s.spare--
		return s.free[s.spare/chunk][s.spare%chunk]
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
	b := &offheap.Make[block](&s.mem, 1)[0]
	s.free = append(s.free, &b.free)
	cs = append(cs, b.entries[:]) // readers of the old slice do not see it
	s.chunks.Store(&cs)
}

func (s *slab) put(r ref) {
	s.free[s.spare/chunk][s.spare%chunk] = r &^ 1
	s.spare++
}
