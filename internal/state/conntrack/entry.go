package conntrack

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// entry is a connection in the table: 128 bytes without pointers, so that a million of them are nothing to the garbage
// collector. What a lookup needs of one that is not translated is in the first 64.
//
// Entries are used again. Readers take no lock: they read the state, then what they want, then the state
// again; when its generation is another, they have read nothing. All words are atomic for their sake.
type entry struct {
	state  atomic.Uint64 // the bits below
	orig   direction
	device [2]atomic.Uint64

	reply direction // not set when mirrored
	used  atomic.Int64
	owner atomic.Uint32 // in Table.owners
	idle  atomic.Uint32 // Conn.Idle in ms
	_     uint64        // two cache lines, whole ones
}

// Bits of entry.state: a State, then these, then the references, then the generation.
const (
	alive    uint64 = 1 << 4
	mirrored uint64 = 1 << 5 // Reply is the reverse of Orig
	oneRef   uint64 = 1 << 6
	oneLife  uint64 = 1 << 32
)

func held(s uint64) bool         { return s%oneLife >= oneRef }
func sameLife(s, t uint64) bool  { return s/oneLife == t/oneLife && t&alive != 0 }
func seenIn(s uint64) State      { return State(s) & seen }
func milliseconds(d int64) int64 { return (d + int64(time.Millisecond) - 1) / int64(time.Millisecond) }

// direction is a packed tuple, with the kind.
type direction [5]atomic.Uint64

// packed is a tuple by words: the addresses, then ports, protocol and kind.
type packed [5]uint64

func pack(k tag.Kind, t *match.Tuple) packed {
	return packed{
		binary.NativeEndian.Uint64(t.Src[:8]), binary.NativeEndian.Uint64(t.Src[8:]),
		binary.NativeEndian.Uint64(t.Dst[:8]), binary.NativeEndian.Uint64(t.Dst[8:]),
		uint64(t.SrcPort)<<16 | uint64(t.DstPort) | uint64(t.Proto)<<32 | uint64(k)<<40,
	}
}

// reversed is the other direction of what is not translated.
func (p *packed) reversed() packed {
	ports := p[4]&0xffff<<16 | p[4]>>16&0xffff
	return packed{p[2], p[3], p[0], p[1], p[4]&^math.MaxUint32 | ports}
}

// ordered is the same for a direction and its reverse.
func (p *packed) ordered() packed {
	src, dst := uint16(p[4]>>16), uint16(p[4])
	if p[0] < p[2] || p[0] == p[2] && (p[1] < p[3] || p[1] == p[3] && src <= dst) {
		return *p
	}
	return p.reversed()
}

func (p *packed) unpack() (k tag.Kind, t match.Tuple) {
	binary.NativeEndian.PutUint64(t.Src[:8], p[0])
	binary.NativeEndian.PutUint64(t.Src[8:], p[1])
	binary.NativeEndian.PutUint64(t.Dst[:8], p[2])
	binary.NativeEndian.PutUint64(t.Dst[8:], p[3])
	t.SrcPort, t.DstPort, t.Proto = uint16(p[4]>>16), uint16(p[4]), uint8(p[4]>>32)
	return tag.Kind(p[4] >> 40), t
}

func (d *direction) load() (p packed) {
	for i := range p {
		p[i] = d[i].Load()
	}
	return p
}

func (d *direction) store(p *packed) {
	for i := range p {
		d[i].Store(p[i])
	}
}

func (d *direction) is(p *packed) bool {
	return d[4].Load() == p[4] && d[1].Load() == p[1] && d[3].Load() == p[3] && d[0].Load() == p[0] && d[2].Load() == p[2]
}

func words(id uuid.UUID) [2]uint64 {
	return [2]uint64{binary.NativeEndian.Uint64(id[:8]), binary.NativeEndian.Uint64(id[8:])}
}

// begin writes a connection into an entry that is not alive, and makes it alive.
func (e *entry) begin(k *key, reply *packed, owner uint32, idle time.Duration, now int64) {
	w := written{
		orig: k.packed, device: k.device, used: now, owner: owner, idle: uint32(min(milliseconds(int64(idle)), math.MaxUint32)),
	}
	s := e.state.Load() | alive
	if *reply == k.reversed() {
		s |= mirrored
	} else {
		w.reply = *reply
	}
	e.write(&w)
	e.state.Store(s)
}

// written is an entry by plain words.
type written struct {
	orig        packed
	device      [2]uint64
	reply       packed
	used        int64
	owner, idle uint32
}

// write fills an entry that is not alive: what readers find is nothing to them until it is. An atomic store waits until all stores before
// it have reached a cache line that most likely no cache holds, and there would be a dozen: plain ones do not. Whoever took the entry
// has held Table.mu since it died, so that nothing of this is seen before that.
func (e *entry) write(w *written) {
	if !raceDetector {
		*(*written)(unsafe.Pointer(&e.orig)) = *w
		return
	}
	e.orig.store(&w.orig)
	e.device[0].Store(w.device[0])
	e.device[1].Store(w.device[1])
	e.reply.store(&w.reply)
	e.used.Store(w.used)
	e.owner.Store(w.owner)
	e.idle.Store(w.idle)
}

// A written covers an entry from orig to idle.
var _ [unsafe.Offsetof(entry{}.idle) - unsafe.Offsetof(entry{}.orig)]byte = [unsafe.Offsetof(written{}.idle)]byte{}

// is reports whether a live connection has the direction k; s is its state before it was looked at.
func (e *entry) is(k *key, s uint64) (reply, ok bool) {
	if s&alive == 0 || e.device[1].Load() != k.device[1] || e.device[0].Load() != k.device[0] {
		return false, false
	}
	if !e.orig.is(&k.packed) {
		other, want := &e.reply, k.packed
		if s&mirrored != 0 {
			other, want = &e.orig, k.reversed()
		}
		if reply = other.is(&want); !reply {
			return false, false
		}
	}
	return reply, sameLife(s, e.state.Load())
}

// directions are both of a connection's.
func (e *entry) directions(s uint64) (orig, reply packed) {
	orig = e.orig.load()
	if s&mirrored != 0 {
		return orig, orig.reversed()
	}
	return orig, e.reply.load()
}

// change applies f to the state for as long as the connection lives that had the state s. It returns the state before and after.
func (e *entry) change(s uint64, f func(uint64) uint64) (before, after uint64, ok bool) {
	for before = e.state.Load(); sameLife(s, before); before = e.state.Load() {
		if after = f(before); e.state.CompareAndSwap(before, after) {
			return before, after, true
		}
	}
	return 0, 0, false
}

// note adds what has been seen.
func (e *entry) note(s uint64, what State) (after uint64, ok bool) {
	_, after, ok = e.change(s, func(s uint64) uint64 { return s | uint64(what&seen) })
	return after, ok
}

// kill marks the connection as removed, held or not, or only when nobody holds it.
func (e *entry) kill(s uint64, evenHeld bool) (was uint64, ok bool) {
	for was = e.state.Load(); sameLife(s, was) && (evenHeld || !held(was)); was = e.state.Load() {
		if e.state.CompareAndSwap(was, was&^alive) {
			return was, true
		}
	}
	return 0, false
}
