package flow

import "github.com/viaduct-net/viaduct/internal/base/offheap"

// index finds refs by hash: open addressing with linear probing, deletion by
// shifting back, so that churn leaves no tombstones and needs no rehashing.
// A slot holds 32 bits of the hash and the ref; the key stays with the value,
// where the caller compares it:
//
//	for p, r := x.first(h); r != 0; p, r = x.next(p, h) { ... }
//
// It grows while it is used: each insert moves a few refs from the smaller table to the larger one, so that no packet
// waits for all of them. What an iteration began with is gone after an insert.
type index struct {
	mem   offheap.Memory
	slots probes // where refs are inserted
	old   probes // what they are moved from while the index grows, else nil
	n     int    // in both
	at    int    // slots of old before it are empty
}

// moves is how many refs an insert moves. Two would do: a table that is twice as large has room for half as many
// inserts as there are refs to be moved.
const moves = 4

// probes is a table of slots, a power of two of them: hash<<32 | ref; 0: empty.
type probes []uint64

func newIndex() index { return index{slots: make(probes, 16)} }

// first and next yield positions: those in old come after those in slots.
func (x *index) first(h uint32) (int, ref) {
	i, r := x.slots.scan(x.slots.home(h), h)
	return x.orOld(i, r, h)
}

func (x *index) next(pos int, h uint32) (int, ref) {
	if pos < len(x.slots) {
		i, r := x.slots.scan(x.slots.after(pos), h)
		return x.orOld(i, r, h)
	}
	i, r := x.old.scan(x.old.after(pos-len(x.slots)), h)
	return len(x.slots) + i, r
}

func (x *index) orOld(i int, r ref, h uint32) (int, ref) {
	if r != 0 || x.old == nil {
		return i, r
	}
	i, r = x.old.scan(x.old.home(h), h)
	return len(x.slots) + i, r
}

func (x *index) insert(h uint32, r ref) {
	if x.old == nil && (x.n+1)*4 > len(x.slots)*3 {
		x.old, x.at = x.slots, 0
		x.slots = offheap.Make[uint64](&x.mem, 2*len(x.old))
	}
	for range moves {
		x.move()
	}
	x.slots.place(uint64(h)<<32 | uint64(r))
	x.n++
}

// move takes one ref over from the smaller table, which goes after the last one.
func (x *index) move() {
	for ; x.at < len(x.old); x.at++ {
		if s := x.old[x.at]; s != 0 {
			x.old.remove(uint32(s>>32), ref(uint32(s))) // another may come to its place
			x.slots.place(s)
			return
		}
	}
	if x.old != nil {
		offheap.Free(&x.mem, x.old)
		x.old = nil
	}
}

// remove takes r out; it must be there under h.
func (x *index) remove(h uint32, r ref) {
	if !x.slots.remove(h, r) {
		x.old.remove(h, r)
	}
	x.n--
}

// all calls fn with every ref until it returns false.
func (x *index) all(fn func(ref) bool) bool {
	for _, p := range [...]probes{x.slots, x.old} {
		for _, s := range p {
			if s != 0 && !fn(ref(uint32(s))) {
				return false
			}
		}
	}
	return true
}

func (p probes) home(h uint32) int { return int(h) & (len(p) - 1) }
func (p probes) after(i int) int   { return (i + 1) & (len(p) - 1) }

// scan finds the first slot at or after i with this hash, before an empty one.
func (p probes) scan(i int, h uint32) (int, ref) {
	for {
		s := p[i]
		if s == 0 {
			return i, 0
		}
		if uint32(s>>32) == h {
			return i, ref(uint32(s))
		}
		i = p.after(i)
	}
}

func (p probes) place(s uint64) {
	i := p.home(uint32(s >> 32))
	for p[i] != 0 {
		i = p.after(i)
	}
	p[i] = s
}

// remove reports whether r was there.
func (p probes) remove(h uint32, r ref) bool {
	want := uint64(h)<<32 | uint64(r)
	mask := len(p) - 1
	hole := p.home(h)
	for ; p[hole] != want; hole = p.after(hole) {
		if p[hole] == 0 {
			return false
		}
	}
	for i := p.after(hole); p[i] != 0; i = p.after(i) {
		// What sits at i may move into the hole unless its home lies after the hole.
		if home := p.home(uint32(p[i] >> 32)); (i-home)&mask >= (i-hole)&mask {
			p[hole] = p[i]
			hole = i
		}
	}
	p[hole] = 0
	return true
}
