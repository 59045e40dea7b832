package conntrack

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/prefetch"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

const (
	shards = 256 // keep short what a writer locks, and what growing moves at once
	ticks  = 8   // calls of Tick that look at every connection once
)

// Table holds the connections of all devices. Safe for concurrent use; lookups take no lock and do
// not allocate. Times are a clock's, in ns. Who calls its methods must hold it until they return: entries are not the garbage collector's.
type Table struct {
	cfg    atomic.Pointer[Config]
	seed   maphash.Seed
	shards [shards]shard
	slab   slab

	mu      sync.Mutex // what follows, and whose the slab's entries are
	ids     map[uuid.UUID]uint32
	owners  []owner // by id
	spare   []uint32
	n       int
	cursor  ref // of Tick
	refused atomic.Uint64
}

type owner struct {
	id    uuid.UUID
	conns int
}

// New makes an empty table.
func New(cfg Config) *Table {
	t := &Table{seed: maphash.MakeSeed(), ids: map[uuid.UUID]uint32{}}
	t.cfg.Store(&cfg)
	return t
}

// Reconfigure changes bounds and timeouts, for the connections that are there too; OnRemove stays.
func (t *Table) Reconfigure(cfg Config) {
	cfg.OnRemove = t.cfg.Load().OnRemove
	t.cfg.Store(&cfg)
}

// key is a direction of a connection of a device.
type key struct {
	packed
	device [2]uint64
}

const packedSize = 5 * 8

// hash is the same for a direction and its reverse, so that both of what is not translated are in one place. The place is the same for all devices, so that
// what both ports of a connection know of it is there too: the second look finds in the cache what the first has waited for. The bits of the
// device tell them apart, however many devices of others have such a connection.
func (t *Table) hash(k *key) uint64 { return t.placeOf(&k.packed) ^ k.bits() }

// bits are the device's in the hash.
func (k *key) bits() uint64 { return (k.device[0] ^ k.device[1]) * 0x9e3779b97f4a7c15 & deviceBits }

// deviceBits are those of a hash that are not of the place: the highest, more than a shard has slots for (home).
const deviceBits = 0xfff << 52

func (t *Table) placeOf(p *packed) uint64 {
	o := p.ordered()
	return maphash.Bytes(t.seed, (*[packedSize]byte)(unsafe.Pointer(&o))[:])
}

// Ahead has the place of the connections that have the tuple as one of their directions brought into the cache.
func (t *Table) Ahead(k tag.Kind, tu *match.Tuple) {
	p := pack(k, tu)
	hash := t.placeOf(&p)
	t.shards[hash%shards].ahead(hash)
}

// AheadOf has the connection that a handle of Ref holds brought into the cache.
func (t *Table) AheadOf(handle uint64) { prefetch.Value(t.slab.entry(ref(handle % oneLife))) }

// found is where a lookup has ended.
type found struct {
	e     half
	ref   ref
	state uint64 // when it was found
	reply bool   // the direction asked for is Reply
}

func (t *Table) find(k *key) (f found, ok bool) { return t.findAt(k, t.hash(k)) }

func (t *Table) findAt(k *key, hash uint64) (f found, ok bool) {
	p := t.shards[hash%shards].probe(hash)
	for r := p.next(); r != 0; r = p.next() {
		e := t.slab.at(r)
		s := e.state.Load()
		if reply, ok := e.is(k, s); ok {
			return found{e, r, s, reply}, true
		}
	}
	return found{}, false
}

// Lookup finds the connection of a device that has the tuple as one of its directions.
func (t *Table) Lookup(k tag.Kind, device uuid.UUID, tu *match.Tuple) (f Found, ok bool) {
	q := key{pack(k, tu), words(device)}
	x, ok := t.find(&q)
	if !ok {
		return f, false
	}
	f = Found{Reply: x.reply, Replied: x.state&uint64(Replied) != 0}
	if x.state&mirrored != 0 {
		f.Other = tu.Reverse()
		return f, true
	}
	orig, other := x.e.directions(x.state)
	if x.reply {
		other = orig
	}
	_, f.Other = other.unpack()
	return f, sameLife(x.state, x.e.state.Load())
}

// Verdict is how an Add ended.
type Verdict uint8

// Verdicts.
const (
	Added    Verdict = iota
	Known            // the very connection was there
	Conflict         // one of the directions belongs to another connection: look again
	Full             // the owner has as many as it may: counted
)

// Add puts a connection in. Two that claim the same direction at the same time are not both added.
func (t *Table) Add(c Conn, now int64) Verdict {
	orig := key{pack(c.Kind, &c.Orig), words(c.Device)}
	reply := key{pack(c.Kind, &c.Reply), orig.device}
	ho := t.hash(&orig)
	hr := ho
	if reply.packed != orig.reversed() {
		hr = t.hash(&reply)
	}
	so, sr := t.lock(ho, hr)
	defer unlock(so, sr)
	if f, ok := t.findAt(&orig, ho); ok {
		if o, r := f.e.directions(f.state); o == orig.packed && r == reply.packed {
			return Known
		}
		return Conflict
	}
	if _, ok := t.findAt(&reply, hr); ok {
		return Conflict
	}
	r, owner, ok := t.take(&c)
	if !ok {
		t.refused.Add(1)
		return Full
	}
	t.slab.entry(r).begin(&orig.packed, &reply.packed, &seenBy{device: orig.device, used: now, owner: owner, idle: idleOf(&c)})
	so.insert(ho, r)
	if hr != ho {
		sr.insert(hr, r)
	}
	return Added
}

// AddBoth is Add for a connection that is not translated as two devices know it, which then have an entry together: a and b differ in their devices and
// owners. Added: both are, and may be held by their handles (RefAt). Conflict: one of them is there, or another is in its way; Full: one of the owners has
// as many as it may. Then neither was added.
func (t *Table) AddBoth(a, b *Conn, now int64) (ha, hb uint64, v Verdict) {
	ka := key{pack(a.Kind, &a.Orig), words(a.Device)}
	kb := key{ka.packed, words(b.Device)}
	place := t.placeOf(&ka.packed) // of both
	ia, ib := place^ka.bits(), place^kb.bits()
	s := &t.shards[place%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.free(&ka, ia) || !t.free(&kb, ib) {
		return 0, 0, Conflict
	}
	r, na, nb, ok := t.takeBoth(a, b)
	if !ok {
		t.refused.Add(1)
		return 0, 0, Full
	}
	sa, sb := t.slab.entry(r).beginBoth(&ka.packed,
		&seenBy{device: ka.device, used: now, owner: na, idle: idleOf(a)},
		&seenBy{device: kb.device, used: now, owner: nb, idle: idleOf(b)})
	s.insert(ia, r)
	s.insert(ib, r+1)
	return handleOf(sa, r), handleOf(sb, r+1), Added
}

// handleOf names a connection that is at a ref and has a state, in this life.
func handleOf(s uint64, r ref) uint64 { return s&^(oneLife-1) | uint64(r) }

// free reports whether no connection has a direction or its reverse, both of which have that hash.
func (t *Table) free(k *key, hash uint64) bool {
	if _, ok := t.findAt(k, hash); ok {
		return false
	}
	_, ok := t.findAt(&key{k.reversed(), k.device}, hash)
	return !ok
}

func idleOf(c *Conn) uint32 { return uint32(min(milliseconds(int64(c.Idle)), math.MaxUint32)) }

// lock takes the locks of two hashes' shards, in one order for everybody; unlock gives them back.
func (t *Table) lock(a, b uint64) (sa, sb *shard) {
	sa, sb = &t.shards[a%shards], &t.shards[b%shards]
	first, second := sa, sb
	if a%shards > b%shards {
		first, second = sb, sa
	}
	first.mu.Lock()
	if first != second {
		second.mu.Lock()
	}
	return sa, sb
}

func unlock(sa, sb *shard) {
	sa.mu.Unlock()
	if sa != sb {
		sb.mu.Unlock()
	}
}

// take gives the owner of a connection room for it, and an entry; give takes it back.
func (t *Table) take(c *Conn) (r ref, n uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok = t.charge(c.Owner); !ok {
		return 0, 0, false
	}
	return t.slab.get(), n, true
}

// takeBoth is take for two connections that are to share an entry.
func (t *Table) takeBoth(a, b *Conn) (r ref, na, nb uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if na, ok = t.charge(a.Owner); !ok {
		return 0, 0, 0, false
	}
	if nb, ok = t.charge(b.Owner); !ok {
		t.discharge(na)
		return 0, 0, 0, false
	}
	return t.slab.get(), na, nb, true
}

// charge counts one connection more of an owner, if it may have it; discharge one less. Both are called with mu held.
func (t *Table) charge(id uuid.UUID) (n uint32, ok bool) {
	n, ok = t.ids[id]
	if !ok {
		if k := len(t.spare); k > 0 {
			n, t.spare = t.spare[k-1], t.spare[:k-1]
		} else {
			n = uint32(len(t.owners))
			t.owners = append(t.owners, owner{})
		}
		t.ids[id], t.owners[n] = n, owner{id: id}
	}
	o := &t.owners[n]
	if max := t.cfg.Load().MaxPerOwner; max > 0 && o.conns >= max {
		return 0, false
	}
	o.conns++
	t.n++
	return n, true
}

func (t *Table) discharge(n uint32) {
	t.n--
	if o := &t.owners[n]; o.conns > 1 {
		o.conns--
	} else {
		delete(t.ids, o.id)
		*o = owner{}
		t.spare = append(t.spare, n)
	}
}

// give ends the life of what was removed, and takes its entry back unless the other half is still used.
func (t *Table) give(r ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.slab.at(r)
	t.discharge(h.owner.Load())
	s := h.state.Load()
	h.state.Store((s/oneLife + 1) * oneLife)
	if s&shared != 0 {
		t.slab.at(r ^ 1).state.And(^shared)
	} else {
		t.slab.put(r)
	}
}

func (t *Table) of(tg *tag.Tag) (found, bool) {
	tu := tg.Tuple()
	k := key{pack(tg.Kind, &tu), words(tg.ID)}
	return t.find(&k)
}

// Ref holds the connection that has a direction as named by tg until Unref is called with the handle; not ok: there is none.
func (t *Table) Ref(tg *tag.Tag) (handle uint64, ok bool) {
	f, ok := t.of(tg)
	if !ok {
		return 0, false
	}
	handle = handleOf(f.state, f.ref)
	return handle, t.RefAt(handle)
}

// RefAt is Ref by a handle that is known; false: the connection is gone.
func (t *Table) RefAt(handle uint64) (ok bool) {
	h := t.slab.at(ref(handle % oneLife))
	_, _, ok = h.change(handle, func(s uint64) uint64 { return s + oneRef })
	return ok
}

// Unref is the counterpart of Ref: the connection's time runs from the last one. It may be gone meanwhile.
func (t *Table) Unref(handle uint64, now int64) {
	e := t.slab.at(ref(handle % oneLife))
	if s := e.state.Load(); !sameLife(handle, s) {
		return
	}
	e.used.Store(now)
	e.change(handle, func(s uint64) uint64 {
		if held(s) {
			s -= oneRef
		}
		return s
	})
}

// Has reports whether there is a connection with the direction named by tg.
func (t *Table) Has(tg *tag.Tag) bool {
	_, ok := t.of(tg)
	return ok
}

// Replied notes that an answer was seen.
func (t *Table) Replied(tg *tag.Tag) {
	if f, ok := t.of(tg); ok && f.state&uint64(Replied) == 0 {
		f.e.note(f.state, Replied)
	}
}

// Ended notes that TCP ends in the direction named by tg: by FIN, or by RST, which ends both.
// It appends what changed, once both have ended and the connection is gone, to tags.
func (t *Table) Ended(tg *tag.Tag, rst bool, tags []tag.Tag) []tag.Tag {
	f, ok := t.of(tg)
	if !ok {
		return tags
	}
	what := FinOrig
	switch {
	case rst:
		what = Reset
	case f.reply:
		what = FinReply
	}
	return t.see(&f, what, tags)
}

// see notes what was seen of a connection, and removes it when it has ended.
func (t *Table) see(f *found, what State, tags []tag.Tag) []tag.Tag {
	if s, ok := f.e.note(f.state, what); ok && seenIn(s).closed() {
		return t.remove(f.ref, s, true, tags)
	}
	return tags
}

// Get returns the connection that has a direction as named by tg, and what has been seen of it.
func (t *Table) Get(tg *tag.Tag) (c Conn, s State, ok bool) {
	f, ok := t.of(tg)
	if !ok {
		return c, 0, false
	}
	return t.conn(f.e, f.state)
}

// conn reads a connection that is alive with the state s.
func (t *Table) conn(e half, s uint64) (c Conn, seen State, ok bool) {
	orig, reply := e.directions(s)
	c.Kind, c.Orig = orig.unpack()
	_, c.Reply = reply.unpack()
	binary.NativeEndian.PutUint64(c.Device[:8], e.device[0].Load())
	binary.NativeEndian.PutUint64(c.Device[8:], e.device[1].Load())
	c.Idle = time.Duration(e.idle.Load()) * time.Millisecond
	t.mu.Lock()
	if n := e.owner.Load(); int(n) < len(t.owners) {
		c.Owner = t.owners[n].id
	}
	t.mu.Unlock()
	return c, seenIn(s), sameLife(s, e.state.Load())
}

// Merge notes what another host has seen of the connection with a direction as named by tg, which counts as a use.
// It appends what changed, once the connection has ended, to tags.
func (t *Table) Merge(tg *tag.Tag, s State, now int64, tags []tag.Tag) []tag.Tag {
	f, ok := t.of(tg)
	if !ok {
		return tags
	}
	f.e.used.Store(now)
	return t.see(&f, s, tags)
}

// End removes the connection that has a direction as named by tg and was as its other one, and appends what changed to tags.
func (t *Table) End(tg *tag.Tag, was *match.Tuple, tags []tag.Tag) []tag.Tag {
	f, ok := t.of(tg)
	if !ok {
		return tags
	}
	orig, other := f.e.directions(f.state)
	if f.reply {
		other = orig
	}
	if other == pack(tg.Kind, was) {
		return t.remove(f.ref, f.state, true, tags)
	}
	return tags
}

// remove takes out the connection that had the state s, held or not, or only when nobody holds it.
func (t *Table) remove(r ref, s uint64, evenHeld bool, tags []tag.Tag) []tag.Tag {
	e := t.slab.at(r)
	s, ok := e.kill(s, evenHeld)
	if !ok {
		return tags // somebody else was faster
	}
	// Until it is given back nobody changes it.
	orig, reply := e.directions(s)
	device := [2]uint64{e.device[0].Load(), e.device[1].Load()}
	ho, hr := t.hash(&key{orig, device}), t.hash(&key{reply, device})
	so, sr := t.lock(ho, hr)
	so.remove(ho, r)
	if hr != ho {
		sr.remove(hr, r)
	}
	unlock(so, sr)
	c, _, _ := t.conn(e, s)
	t.give(r)
	if removed := t.cfg.Load().OnRemove; removed != nil {
		removed(c)
	}
	return append(tags, tag.Of(c.Kind, c.Device, &c.Orig), tag.Of(c.Kind, c.Device, &c.Reply))
}

// each calls f for the connections at refs from first up to last, with their states.
func (t *Table) each(first, last ref, f func(ref, half, uint64)) {
	for r := first; r <= last; r++ {
		e := t.slab.at(r)
		if s := e.state.Load(); s&alive != 0 {
			f(r, e, s)
		}
	}
}

// last is the last ref that was ever handed out.
func (t *Table) last() ref {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slab.last()
}

// Forget removes the connections of a device that is gone, and those that a port that is gone owned.
func (t *Table) Forget(id uuid.UUID, tags []tag.Tag) []tag.Tag {
	t.each(firstRef, t.last(), func(r ref, e half, s uint64) {
		if c, _, ok := t.conn(e, s); ok && (c.Device == id || c.Owner == id) {
			tags = t.remove(r, s, true, tags)
		}
	})
	return tags
}

// Tick removes what has expired, as far as it looks: an eighth of the table a call. It appends what
// changed to tags. To be called about once a second.
func (t *Table) Tick(now int64, tags []tag.Tag) []tag.Tag {
	t.mu.Lock()
	first, last := max(t.cursor+1, firstRef), t.slab.last()
	if first > last {
		first = firstRef
	}
	last = min(last, first+last/ticks)
	t.cursor = last
	t.mu.Unlock()
	cfg := t.cfg.Load()
	t.each(first, last, func(r ref, e half, s uint64) {
		if held(s) {
			return
		}
		idle := time.Duration(e.idle.Load()) * time.Millisecond
		if proto := uint8(e.orig[4].Load() >> 32); now >= e.used.Load()+int64(cfg.timeout(proto, idle, seenIn(s))) {
			tags = t.remove(r, s, false, tags)
		}
	})
	return tags
}

// Each calls fn for each connection, which is fn's until it returns, with whether a flow holds it. Those that come or go meanwhile may be
// missed.
func (t *Table) Each(fn func(c *Conn, s State, held bool)) {
	var c Conn
	t.each(firstRef, t.last(), func(_ ref, e half, s uint64) {
		var seen State
		var ok bool
		if c, seen, ok = t.conn(e, s); ok {
			fn(&c, seen, held(s))
		}
	})
}

// Len is the number of connections.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// Refused counts the connections beyond an owner's bound.
func (t *Table) Refused() uint64 { return t.refused.Load() }
