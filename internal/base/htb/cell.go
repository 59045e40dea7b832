package htb

import "sync/atomic"

// Take does what the datapath does for a missed packet: it takes a token from the
// port's cell or, when that is empty, from the root's. It reports whether it got one. Safe for
// concurrent use, with the kernel and with a Policy.
func Take(leaf, root *int64) bool { return takeOne(leaf) || takeOne(root) }

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
