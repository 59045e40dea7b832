package conntrack

import (
	"sync"
	"sync/atomic"

	"github.com/viaduct-net/viaduct/internal/base/prefetch"
)

const (
	minSlots  = 8
	pageSlots = 512 // of 4 KiB
)

// shard is a part of the index: a hash table with open addressing and linear probing. A connection is in it once when its
// directions hash alike, which all do that are not translated, and else once for each.
type shard struct {
	mu    sync.Mutex
	n     int // of slots: with a ref
	used  int // not empty
	slots atomic.Pointer[[]slot]
	_     [24]byte // a cache line of its own
}

// slot is the high half of the hash and a ref; 0: empty, and has been since there are these slots.
type slot struct{ atomic.Uint64 }

// gone is a slot whose connection was removed, and behind which there are others.
const gone = 1 << 32

func home(slots []slot, hash uint64) int { return int(hash>>32) & (len(slots) - 1) }

func (s *shard) probe(hash uint64) probe {
	p := s.slots.Load()
	if p == nil {
		return probe{}
	}
	return probe{*p, home(*p, hash), hash >> 32}
}

// ahead has the place of a hash brought into the cache.
func (s *shard) ahead(hash uint64) {
	if p := s.slots.Load(); p != nil {
		prefetch.Value(&(*p)[home(*p, hash)])
	}
}

// probe goes over the refs that may have a hash.
type probe struct {
	slots []slot
	at    int
	want  uint64
}

func (p *probe) next() ref {
	if p.slots == nil {
		return 0
	}
	for {
		v := p.slots[p.at].Load()
		p.at = (p.at + 1) & (len(p.slots) - 1)
		if v == 0 {
			return 0
		}
		if v>>32 == p.want && ref(v) != 0 {
			return ref(v)
		}
	}
}

// insert and remove are called with mu held.
func (s *shard) insert(hash uint64, r ref) {
	var slots []slot
	if p := s.slots.Load(); p != nil {
		slots = *p
	}
	if 4*(s.used+1) > 3*len(slots) {
		slots = s.renew(slots)
	}
	i := home(slots, hash)
	for ref(slots[i].Load()) != 0 {
		i = (i + 1) & (len(slots) - 1)
	}
	if slots[i].Load() == 0 {
		s.used++
	}
	s.n++
	slots[i].Store(hash>>32<<32 | uint64(r))
}

// renew makes slots of which at most half are used. A reader stays on those that it began with.
func (s *shard) renew(old []slot) []slot {
	size := minSlots
	for size < 2*(s.n+1) {
		size *= 2
	}
	slots := make([]slot, size)
	for i := 0; i < size; i += pageSlots {
		touch(&slots[i].Uint64)
	}
	for i := range old {
		v := old[i].Load()
		if ref(v) == 0 {
			continue
		}
		at := home(slots, v)
		for slots[at].Load() != 0 {
			at = (at + 1) & (size - 1)
		}
		slots[at].Store(v)
	}
	s.used = s.n
	s.slots.Store(&slots)
	return slots
}

func (s *shard) remove(hash uint64, r ref) {
	p := s.slots.Load()
	if p == nil {
		return
	}
	slots, want := *p, hash>>32<<32|uint64(r)
	mask := len(slots) - 1
	i := home(slots, hash)
	for v := slots[i].Load(); v != want; v = slots[i].Load() {
		if v == 0 {
			return
		}
		i = (i + 1) & mask
	}
	s.n--
	if slots[(i+1)&mask].Load() != 0 {
		slots[i].Store(gone)
		return
	}
	// Nothing is behind it, nor behind those before it that are gone.
	for {
		slots[i].Store(0)
		s.used--
		if i = (i - 1) & mask; slots[i].Load() != gone {
			return
		}
	}
}
