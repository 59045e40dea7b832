package nat

import (
	"math/rand/v2"
	"sync"
)

// Local is the Leaser of a host that shares its addresses with no other. Blocks are chosen at random, so that ports are
// hard to guess from outside (RFC 6056).
type Local struct {
	mu    sync.Mutex
	taken map[Pool]map[uint16]bool
}

// NewLocal makes a Leaser of which nothing is leased.
func NewLocal() *Local { return &Local{taken: map[Pool]map[uint16]bool{}} }

// Lease implements Leaser; done is called before it returns.
func (l *Local) Lease(p Pool, lo, hi, want uint16, done func(block uint16, ok bool)) {
	done(l.lease(p, lo, hi, want))
}

func (l *Local) lease(p Pool, lo, hi, want uint16) (block uint16, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.taken[p]
	if taken == nil {
		taken = map[uint16]bool{}
		l.taken[p] = taken
	}
	if want != 0 && !taken[want&^(BlockSize-1)] {
		taken[want&^(BlockSize-1)] = true
		return want &^ (BlockSize - 1), true
	}
	first, n := int(lo)/BlockSize, int(hi)/BlockSize-int(lo)/BlockSize+1
	start := rand.IntN(max(n, 1))
	for i := range n {
		b := uint16((first + (start+i)%n) * BlockSize)
		if !taken[b] {
			taken[b] = true
			return b, true
		}
	}
	return 0, false
}

// Release implements Leaser.
func (l *Local) Release(p Pool, block uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.taken[p], block)
	if len(l.taken[p]) == 0 {
		delete(l.taken, p)
	}
}
