package htb

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever ports have out and hold, tokens go to those that have least out of all that have room.
func TestFill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := newBucket(nil, "class", 0, 1, nil)
		class.level = true
		before := make([]int64, rapid.IntRange(1, 8).Draw(t, "ports"))
		for i := range before {
			c := newBucket(class, "port", rapid.Int64Range(0, 9).Draw(t, "capacity"), 1, nil)
			*c.cell = rapid.Int64Range(0, c.capacity).Draw(t, "holds")
			c.out = *c.cell + rapid.Int64Range(0, 20).Draw(t, "in flight")
			before[i] = c.out
		}
		room, held := class.survey()
		n := rapid.Int64Range(0, 60).Draw(t, "n")
		if excess := class.distribute(n); excess != max(n-room, 0) {
			t.Fatalf("%d of %d did not fit into %d", excess, n, room)
		}
		if left, now := class.survey(); now-held != min(n, room) || left < room-now+held {
			t.Fatalf("held %d, given %d, holds %d", held, n, now)
		}
		for i, c := range class.children {
			for _, other := range class.children {
				if c.out > before[i] && *other.cell < other.capacity && c.out > other.out+1 {
					t.Fatalf("a port was given tokens until it had %d out, another one that has room has %d", c.out, other.out)
				}
			}
		}
	})
}

// Where there are fewer tokens than ports that want some, each has its turn.
func TestEqualsTakeTurns(t *testing.T) {
	class := newBucket(nil, "class", 0, 1, nil)
	class.level = true
	for range 5 {
		newBucket(class, "port", 9, 1, nil)
	}
	had := make(map[*bucket]int)
	for range 20 {
		class.distribute(2)
		for _, c := range class.children {
			if n := takeUpTo(c.cell, 9); n > 0 { // and back at once
				had[c] += int(n)
				c.back.Add(n)
			}
		}
	}
	for _, c := range class.children {
		if had[c] != 8 {
			t.Fatalf("got %d of 40", had[c])
		}
	}
}

// A port that sends now and then has its token back before those that always want more.
func TestQuietPortIsMadeWholeFirst(t *testing.T) {
	p := New(config(8, 0, 0, 8), nil)
	quiet, a, b := link(p, "quiet", VM, nil), link(p, "a", VM, nil), link(p, "b", VM, nil)
	drain(p, a)
	drain(p, b)
	for range 5 {
		p.TryTake(quiet)
	}
	for range 5 {
		p.Return([]uint32{quiet.no})
	}
	if quiet.Tokens() != 8 || a.Tokens() != 0 || b.Tokens() != 0 {
		t.Fatalf("%d, %d, %d tokens", quiet.Tokens(), a.Tokens(), b.Tokens())
	}
	p.Return([]uint32{a.no})
	if a.Tokens() != 1 || b.Tokens() != 0 {
		t.Fatalf("%d and %d tokens: the port that has one less out is to get it", a.Tokens(), b.Tokens())
	}
}

// What had accumulated while others were idle is, once they want some, shared by all, whoever drew it.
func TestDrawnFromTheRoot(t *testing.T) {
	p := New(config(64, 0, 0, 8), nil)
	a, b := link(p, "a", VM, nil), link(p, "b", VM, nil)
	var flight []uint32 // whose the tokens are
	exhaust := func(l *Leaf) {
		for {
			ok, lent := Take(l.b.cell, p.root.cell)
			if !ok {
				return
			}
			flight = append(flight, owner(l, lent))
		}
	}
	exhaust(a) // its own 8, and 48 of the root
	exhaust(b)
	for range 64 {
		p.Return(flight[:1])
		flight = flight[1:]
		exhaust(a)
		exhaust(b)
	}
	if a.b.out != 32 || b.b.out != 32 {
		t.Fatalf("%d and %d", a.b.out, b.b.out)
	}
}
