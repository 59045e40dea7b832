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

// entry is a connection in the table as one device knows it, or one that is not translated as two do: the ports of a host by which it goes in
// and out. It is 128 bytes without pointers, so that a million of them are nothing to the garbage collector. What a lookup needs of one that is not
// translated is in the first 64, for the first device.
//
// Entries are used again. Readers take no lock: they read the state, then what they want, then the state
// again; when its generation is another, they have read nothing. All words are atomic for their sake.
type entry struct {
	firstState  atomic.Uint64 // the bits below
	orig        direction
	first       view
	secondState atomic.Uint64 // what the second device knows has a life of its own
	reply       direction     // not set when mirrored: the second device's view is there then
}

// view is what one device knows of a connection beside its state.
type view struct {
	device [2]atomic.Uint64
	used   atomic.Int64
	owner  atomic.Uint32 // in Table.owners
	idle   atomic.Uint32 // Conn.Idle in ms
}

// half is an entry as one device knows it.
type half struct {
	*entry
	*view
	state *atomic.Uint64
}

func (e *entry) half(second bool) half {
	if second {
		return half{e, (*view)(unsafe.Pointer(&e.reply)), &e.secondState}
	}
	return half{e, &e.first, &e.firstState}
}

// The second view is within reply; an entry is two cache lines, whole ones; what is written by plain words has those of the others.
var (
	_ [unsafe.Sizeof(direction{}) - unsafe.Sizeof(view{})]byte
	_ [128]byte                   = [unsafe.Sizeof(entry{})]byte{}
	_ [unsafe.Sizeof(view{})]byte = [unsafe.Sizeof(seenBy{})]byte{}
)

// Bits of a state: a State, then these, then the references, then the generation.
const (
	alive    uint64 = 1 << 4
	mirrored uint64 = 1 << 5 // Reply is the reverse of Orig
	shared   uint64 = 1 << 6 // the entry's other half is not given back yet
	oneRef   uint64 = 1 << 7
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

// write fills a part of an entry of which nothing is alive: what readers find is nothing to them until it is. An atomic store waits until all stores
// before it have reached a cache line that most likely no cache holds, and there would be a dozen: plain ones do not. Whoever took the entry
// has held Table.mu since it died, so that nothing of this is seen before that.
func (d *direction) write(p *packed) {
	if raceDetector {
		d.store(p)
	} else {
		*(*packed)(unsafe.Pointer(d)) = *p
	}
}

// seenBy is a view by plain words.
type seenBy struct {
	device      [2]uint64
	used        int64
	owner, idle uint32
}

// write is as a direction's.
func (v *view) write(s *seenBy) {
	if !raceDetector {
		*(*seenBy)(unsafe.Pointer(v)) = *s
		return
	}
	v.device[0].Store(s.device[0])
	v.device[1].Store(s.device[1])
	v.used.Store(s.used)
	v.owner.Store(s.owner)
	v.idle.Store(s.idle)
}

func (d *direction) is(p *packed) bool {
	return d[4].Load() == p[4] && d[1].Load() == p[1] && d[3].Load() == p[3] && d[0].Load() == p[0] && d[2].Load() == p[2]
}

func words(id uuid.UUID) [2]uint64 {
	return [2]uint64{binary.NativeEndian.Uint64(id[:8]), binary.NativeEndian.Uint64(id[8:])}
}

// begin writes a connection into an entry of which nothing is alive, and makes it alive.
func (e *entry) begin(orig, reply *packed, v *seenBy) {
	is := touch(&e.firstState) | alive
	if *reply == orig.reversed() {
		is |= mirrored
	} else {
		e.reply.write(reply)
	}
	e.orig.write(orig)
	e.first.write(v)
	e.firstState.Store(is)
}

// beginBoth does so with one that is not translated and that two devices know. It returns the states.
func (e *entry) beginBoth(orig *packed, a, b *seenBy) (first, second uint64) {
	const is = alive | mirrored | shared
	first = touch(&e.firstState) | is
	second = e.secondState.Load() | is
	e.orig.write(orig)
	e.first.write(a)
	e.half(true).view.write(b)
	e.secondState.Store(second)
	e.firstState.Store(first)
	return first, second
}

// touch is a load for what is about to be written. Memory that was never written is not there, and one that is only read is the one
// page of zeros that everybody has: both would be a fault of a page.
func touch(w *atomic.Uint64) uint64 { return w.Add(0) }

// is reports whether a live connection has the direction k; s is its state before it was looked at.
func (e *half) is(k *key, s uint64) (reply, ok bool) {
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
func (e *half) directions(s uint64) (orig, reply packed) {
	orig = e.orig.load()
	if s&mirrored != 0 {
		return orig, orig.reversed()
	}
	return orig, e.reply.load()
}

// change applies f to the state for as long as the connection lives that had the state s. It returns the state before and after.
func (e *half) change(s uint64, f func(uint64) uint64) (before, after uint64, ok bool) {
	for before = e.state.Load(); sameLife(s, before); before = e.state.Load() {
		if after = f(before); e.state.CompareAndSwap(before, after) {
			return before, after, true
		}
	}
	return 0, 0, false
}

// note adds what has been seen.
func (e *half) note(s uint64, what State) (after uint64, ok bool) {
	_, after, ok = e.change(s, func(s uint64) uint64 { return s | uint64(what&seen) })
	return after, ok
}

// kill marks the connection as removed, held or not, or only when nobody holds it.
func (e *half) kill(s uint64, evenHeld bool) (was uint64, ok bool) {
	for was = e.state.Load(); sameLife(s, was) && (evenHeld || !held(was)); was = e.state.Load() {
		if e.state.CompareAndSwap(was, was&^alive) {
			return was, true
		}
	}
	return 0, false
}
