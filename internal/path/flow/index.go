package flow

// index finds refs by hash: open addressing with linear probing, deletion by
// shifting back, so that churn leaves no tombstones and needs no rehashing.
// A slot holds 32 bits of the hash and the ref; the key stays with the value,
// where the caller compares it:
//
//	for p, r := x.first(h); r != 0; p, r = x.next(p, h) { ... }
type index struct {
	slots []uint64 // hash<<32 | ref; 0: empty
	n     int
}

// newIndex has room for n refs before it grows.
func newIndex(n int) index {
	size := 16
	for size*3/4 < n {
		size *= 2
	}
	return index{slots: make([]uint64, size)}
}

func (x *index) home(h uint32) int { return int(h) & (len(x.slots) - 1) }

func (x *index) first(h uint32) (int, ref) { return x.scan(x.home(h), h) }

func (x *index) next(pos int, h uint32) (int, ref) {
	return x.scan((pos+1)&(len(x.slots)-1), h)
}

func (x *index) scan(i int, h uint32) (int, ref) {
	for {
		s := x.slots[i]
		if s == 0 {
			return i, 0
		}
		if uint32(s>>32) == h {
			return i, ref(uint32(s))
		}
		i = (i + 1) & (len(x.slots) - 1)
	}
}

func (x *index) insert(h uint32, r ref) {
	if (x.n+1)*4 > len(x.slots)*3 {
		x.resize(2 * len(x.slots))
	}
	x.place(uint64(h)<<32 | uint64(r))
	x.n++
}

// reserve makes room for n refs, so that it need not grow before.
func (x *index) reserve(n int) {
	size := len(x.slots)
	for size*3/4 < n {
		size *= 2
	}
	if size > len(x.slots) {
		x.resize(size)
	}
}

func (x *index) resize(size int) {
	old := x.slots
	x.slots = make([]uint64, size)
	for _, s := range old {
		if s != 0 {
			x.place(s)
		}
	}
}

func (x *index) place(s uint64) {
	i := x.home(uint32(s >> 32))
	for x.slots[i] != 0 {
		i = (i + 1) & (len(x.slots) - 1)
	}
	x.slots[i] = s
}

// remove takes r out; it must be there under h.
func (x *index) remove(h uint32, r ref) {
	want := uint64(h)<<32 | uint64(r)
	mask := len(x.slots) - 1
	hole := x.home(h)
	for x.slots[hole] != want {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; x.slots[i] != 0; i = (i + 1) & mask {
		// What sits at i may move into the hole unless its home lies after the hole.
		if home := x.home(uint32(x.slots[i] >> 32)); (i-home)&mask >= (i-hole)&mask {
			x.slots[hole] = x.slots[i]
			hole = i
		}
	}
	x.slots[hole] = 0
	x.n--
}
