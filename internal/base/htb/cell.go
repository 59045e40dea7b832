package htb

import "sync/atomic"

// Closed is what a cell holds whose port takes no tokens at all, not even the root's: nobody would know what to do with its
// packets. Link opens it. No race between takers brings an open cell as low.
const Closed = -1 << 62

// closedBelow is CLOSED of bpf/credit.h.
const closedBelow = -1 << 32

// IsClosed reports whether the datapath is to refuse all misses of a cell's port.
func IsClosed(cell *int64) bool { return atomic.LoadInt64(cell) < closedBelow }

// Take does what the datapath does for a missed packet: it takes a token from the
// port's cell or, when that is empty, from the root's. It reports whether it got one, and whether that is the root's. Safe for
// concurrent use, with the kernel and with a Policy.
func Take(leaf, root *int64) (ok, lent bool) {
	if IsClosed(leaf) {
		return false, false
	}
	if takeOne(leaf) {
		return true, false
	}
	lent = takeOne(root)
	return lent, lent
}

func takeOne(cell *int64) bool {
	// The first look spares the cell's cache line two writes when a flood finds it empty.
	if atomic.LoadInt64(cell) <= 0 {
		return false
	}
	if atomic.AddInt64(cell, -1) >= 0 {
		return true
	}
	atomic.AddInt64(cell, 1)
	return false
}

// open empties a cell, and has takers come. It returns what was in there.
func open(cell *int64) int64 {
	if IsClosed(cell) {
		atomic.StoreInt64(cell, 0) // nobody else changes a closed one
	}
	return takeUpTo(cell, 1<<62)
}

// takeUpTo takes at most n tokens out of cell and returns how many.
func takeUpTo(cell *int64, n int64) int64 {
	for {
		v := atomic.LoadInt64(cell)
		k := min(v, n)
		if k <= 0 {
			return 0
		}
		if atomic.CompareAndSwapInt64(cell, v, v-k) {
			return k
		}
	}
}
