package htb

import (
	"math"
	"slices"
	"sync/atomic"
)

// bucket is a node of the tree. What fits into its children goes there; what does not, it
// holds itself, up to its capacity. A leaf is a bucket without children. Not safe for concurrent
// use, except that anybody may take tokens out of its cell.
type bucket struct {
	name     string
	capacity int64 // tokens that the bucket itself may hold
	share    int64 // tokens per turn among its siblings, at least 1
	cell     *int64
	parent   *bucket
	children []*bucket

	level  bool  // its children are ports, and are to have the same number of tokens out, whatever each had before
	cursor int   // index of the child whose turn it is
	turn   int64 // tokens which that child has had in its turn

	out  int64        // of a port: tokens given to it that have not come back; it holds them, or they are in flight
	back atomic.Int64 // of these, come back since the last survey

	// Valid from survey to the end of deal. The datapath only makes more room
	// meanwhile.
	room  int64 // tokens that fit in here and below
	below int64 // of these, into children
	grant int64 // tokens promised by the parent
	open  []int // indices of children with room, ascending
}

// newBucket adds a bucket below parent, which is nil for a root. A nil cell means memory of its
// own.
func newBucket(parent *bucket, name string, capacity, share int64, cell *int64) *bucket {
	if cell == nil {
		cell = new(int64)
	}
	b := &bucket{name: name, capacity: capacity, share: max(share, 1), cell: cell, parent: parent}
	if parent != nil {
		b.name = parent.name + "/" + name
		parent.children = append(parent.children, b)
	}
	return b
}

// detach removes b from its parent. The tokens in its cell stay there.
func (b *bucket) detach() {
	p := b.parent
	i := slices.Index(p.children, b)
	p.children = slices.Delete(p.children, i, i+1)
	switch {
	case i < p.cursor:
		p.cursor--
	case i == p.cursor:
		p.turn = 0 // the turn passes to the one that moves up
	}
	if p.cursor >= len(p.children) {
		p.cursor, p.turn = 0, 0
	}
	b.parent = nil
}

// survey reads every cell once, notes how much room there is, and returns it together with the
// tokens found.
func (b *bucket) survey() (room, held int64) {
	// Before the cell is read: of a token that is taken and comes back in between, the next survey is to know.
	if n := b.back.Load(); n != 0 {
		b.back.Add(-n)
		b.out -= n
	}
	v := atomic.LoadInt64(b.cell)
	held = v
	b.out = max(b.out, v) // more has come back than it was given: what an earlier policy had given it
	b.below, b.open = 0, b.open[:0]
	for i, c := range b.children {
		r, h := c.survey()
		held += h
		if r > 0 {
			b.below += r
			b.open = append(b.open, i)
		}
	}
	// What b holds goes to its children first, so it takes up their room too.
	b.room = max(b.below+b.capacity-max(v, 0), 0)
	return b.room, held
}

// distribute hands out n tokens together with those that have accumulated in inner
// buckets, and returns what did not fit.
func (b *bucket) distribute(n int64) (excess int64) {
	room, _ := b.survey()
	fits := min(n, room)
	b.deal(fits)
	return n - fits
}

// deal places n tokens after a survey, among the children, the rest in b: at most
// b.room if b is not to exceed its capacity.
//
// Tokens for different children do not interfere, so each child gets its grant in one
// go; the outcome is that of dealing them one by one through the whole tree.
func (b *bucket) deal(n int64) {
	if n < b.below {
		n += takeUpTo(b.cell, b.below-n)
	}
	down := min(n, b.below)
	if b.level {
		b.fill(down)
	} else {
		b.turns(down)
	}
	for _, i := range b.open {
		b.children[i].settle()
	}
	if n > down {
		atomic.AddInt64(b.cell, n-down)
	}
}

// turns promises n tokens to the children with room, in turns as long as their shares.
func (b *bucket) turns(n int64) {
	i, _ := slices.BinarySearch(b.open, b.cursor)
	for ; n > 0; n-- {
		if i == len(b.open) {
			i = 0
		}
		if b.open[i] != b.cursor { // the child whose turn it was is full
			b.cursor, b.turn = b.open[i], 0
		}
		c := b.children[b.cursor]
		c.grant++
		b.turn++
		full := c.grant == c.room
		if !full && b.turn < c.share {
			continue
		}
		b.cursor, b.turn = (b.cursor+1)%len(b.children), 0
		if full {
			b.open = slices.Delete(b.open, i, i+1)
			c.settle()
		} else {
			i++
		}
	}
}

// fill promises n tokens to the children with room, each to the one that has least out, in turns among equals: as water fills vessels.
func (b *bucket) fill(n int64) {
	for n > 0 {
		low, next, room, lowest := int64(math.MaxInt64), int64(math.MaxInt64), int64(0), int64(0)
		for _, i := range b.open {
			switch c := b.children[i]; {
			case c.out < low:
				low, next, room, lowest = c.out, low, c.room-c.grant, 1
			case c.out == low:
				room = min(room, c.room-c.grant)
				lowest++
			default:
				next = min(next, c.out)
			}
		}
		each := min(next-low, room, n/lowest)
		if each == 0 {
			lowest, each = n, 1
		}
		n -= lowest * each
		full := false
		i, _ := slices.BinarySearch(b.open, b.cursor)
		for ; lowest > 0; i++ {
			if i == len(b.open) {
				i = 0
			}
			if c := b.children[b.open[i]]; c.out == low {
				c.out += each
				c.grant += each
				lowest--
				b.cursor = (b.open[i] + 1) % len(b.children)
				full = full || c.grant == c.room
			}
		}
		if full {
			b.open = slices.DeleteFunc(b.open, b.settleFull)
		}
	}
}

// settleFull settles a child whose room is used up, and reports whether it is.
func (b *bucket) settleFull(i int) bool {
	c := b.children[i]
	if c.grant < c.room {
		return false
	}
	c.settle()
	return true
}

// settle deals what the parent has promised.
func (b *bucket) settle() {
	n := b.grant
	b.grant = 0
	if n > 0 || b.below > 0 {
		b.deal(n)
	}
}
