package htb

import (
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// oracle is a bucket as the definition has it: every token is offered on its own, and
// walks down the whole tree.
type oracle struct {
	capacity, share, tokens int64
	children                []*oracle
	cursor                  int
	turn                    int64
}

func (o *oracle) offer() bool {
	for range o.children {
		c := o.children[o.cursor]
		if c.offer() {
			if o.turn++; o.turn == c.share || !c.hasRoom() {
				o.next()
			}
			return true
		}
		o.next()
	}
	if o.tokens < o.capacity {
		o.tokens++
		return true
	}
	return false
}

func (o *oracle) next() { o.cursor, o.turn = (o.cursor+1)%len(o.children), 0 }

func (o *oracle) hasRoom() bool {
	if o.tokens < o.capacity {
		return true
	}
	for _, c := range o.children {
		if c.hasRoom() {
			return true
		}
	}
	return false
}

func (o *oracle) leaves(fn func(*oracle)) {
	for _, c := range o.children {
		c.leaves(fn)
	}
	if o.children == nil {
		fn(o)
	}
}

func tokens(b *bucket) int64 { return atomic.LoadInt64(b.cell) }

func bucketLeaves(b *bucket, fn func(*bucket)) {
	for _, c := range b.children {
		bucketLeaves(c, fn)
	}
	if b.children == nil {
		fn(b)
	}
}

// The grants in bulk are those of offering the tokens one at a time, whatever the tree.
func TestDistributeAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var build func(parent *bucket, depth int) (*bucket, *oracle)
		build = func(parent *bucket, depth int) (*bucket, *oracle) {
			share := rapid.Int64Range(1, 3).Draw(t, "share")
			kids := 0
			if depth < 3 {
				kids = rapid.IntRange(0, 4).Draw(t, "kids")
			}
			var capacity int64
			// Inner buckets hold nothing, as in production: what an inner bucket
			// holds belongs to no turn, so there the order is not the definition's.
			if kids == 0 || parent == nil {
				capacity = rapid.Int64Range(0, 6).Draw(t, "capacity")
			}
			b := newBucket(parent, "b", capacity, share, nil)
			o := &oracle{capacity: capacity, share: share}
			for range kids {
				_, c := build(b, depth+1)
				o.children = append(o.children, c)
			}
			return b, o
		}
		root, want := build(nil, 0)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			var leaves []*bucket
			bucketLeaves(root, func(b *bucket) { leaves = append(leaves, b) })
			i := 0
			want.leaves(func(o *oracle) { // the datapath takes some
				k := rapid.Int64Range(0, o.tokens).Draw(t, "take")
				o.tokens -= k
				atomic.AddInt64(leaves[i].cell, -k)
				i++
			})
			n := rapid.Int64Range(0, 40).Draw(t, "n")
			got := root.distribute(n)
			// What the root holds goes down first.
			all := n
			if want.children != nil {
				all += want.tokens
				want.tokens = 0
			}
			var excess int64
			for range all {
				if !want.offer() {
					excess++
				}
			}
			if got != excess {
				t.Fatalf("excess %d, want %d", got, excess)
			}
			if want.children != nil && tokens(root) != want.tokens {
				t.Fatalf("root holds %d, want %d", tokens(root), want.tokens)
			}
			i = 0
			want.leaves(func(o *oracle) {
				if tokens(leaves[i]) != o.tokens {
					t.Fatalf("leaf %d holds %d, want %d", i, tokens(leaves[i]), o.tokens)
				}
				i++
			})
		}
	})
}

func TestDetachKeepsTurns(t *testing.T) {
	root := newBucket(nil, "root", 100, 1, nil)
	var kids [3]*bucket
	for i := range kids {
		kids[i] = newBucket(root, "k", 100, 1, nil)
	}
	root.distribute(1) // next: kids[1]
	kids[1].detach()
	root.distribute(1)
	if tokens(kids[0]) != 1 || tokens(kids[2]) != 1 {
		t.Fatalf("got %d and %d: the turn shall pass to the next child", tokens(kids[0]), tokens(kids[2]))
	}
	kids[0].detach() // before the cursor's wrap
	kids[2].detach()
	if left := root.distribute(3); left != 0 || tokens(root) != 3 {
		t.Fatalf("left %d, root %d", left, tokens(root))
	}
}

// A cell that a taker has made one too low for a moment: no token is minted.
func TestTransientlyNegativeCell(t *testing.T) {
	root, leaf := int64(0), int64(0)
	p := New(Config{Global: 4, VM: 2, VMShare: 1, TunnelShare: 1, VTEPShare: 1}, &root)
	l := link(p, "vm", VM, &leaf)
	for range 4 {
		if !p.TryTake(l) {
			t.Fatal("4 tokens expected")
		}
	}
	atomic.AddInt64(&leaf, -1) // a taker that finds nothing ...
	atomic.AddInt64(&root, -1)
	back(p, 3)
	atomic.AddInt64(&leaf, 1) // ... and adds back
	atomic.AddInt64(&root, 1)
	if a := p.Account(); a.Held != 3 || a.InFlight != 1 || a.Surplus != 0 {
		t.Fatalf("%+v", a)
	}
	atomic.AddInt64(&leaf, -1) // between decrement and adding back while it is unlinked
	p.Unlink(l)
	atomic.AddInt64(&leaf, 1)
	back(p, 1)
	if a := p.Account(); a.Held != 4 || a.InFlight != 0 || atomic.LoadInt64(&leaf) != 0 {
		t.Fatalf("%+v, cell %d", a, leaf)
	}
}
