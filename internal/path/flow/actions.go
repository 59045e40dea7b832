package flow

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// cell is a piece of a packed list of actions.
type cell struct {
	next ref
	data [28]byte
}

// actionLists holds each list of actions once, packed, for most entries share theirs: what is done to the packets of a port
// towards another one. It has no pointers, so that the garbage collector need not look at it.
type actionLists struct {
	cells slab[cell]
	heads slab[listHead]
	idx   index
	seed  maphash.Seed

	packed   []byte // scratch
	unpacked action.Physical
	last     ref // whose actions are in unpacked
}

// listHead is a list. ref 0 is the empty one.
type listHead struct {
	hash, uses uint32
	size       uint32 // bytes
	first      ref    // cell
}

// add finds or makes the list and counts one more use.
func (l *actionLists) add(as action.Physical) ref {
	if len(as) == 0 {
		return 0
	}
	l.packed = pack(l.packed[:0], as)
	h := uint32(maphash.Bytes(l.seed, l.packed))
	for p, r := l.idx.first(h); r != 0; p, r = l.idx.next(p, h) {
		if l.same(r) {
			l.heads.at(r).uses++
			return r
		}
	}
	r := l.heads.get()
	head := listHead{hash: h, uses: 1, size: uint32(len(l.packed))}
	at := &head.first
	for left := l.packed; len(left) > 0; {
		*at = l.cells.get()
		c := l.cells.at(*at)
		left = left[copy(c.data[:], left):]
		at = &c.next
	}
	*at = 0
	*l.heads.at(r) = head
	l.idx.insert(h, r)
	return r
}

// same compares a list with what is packed.
func (l *actionLists) same(r ref) bool {
	head := l.heads.at(r)
	if int(head.size) != len(l.packed) {
		return false
	}
	left := l.packed
	for c := head.first; c != 0; c = l.cells.at(c).next {
		n := min(len(left), len(cell{}.data))
		if !bytes.Equal(l.cells.at(c).data[:n], left[:n]) {
			return false
		}
		left = left[n:]
	}
	return true
}

// drop counts one use less.
func (l *actionLists) drop(r ref) {
	if r == 0 {
		return
	}
	head := l.heads.at(r)
	if head.uses--; head.uses > 0 {
		return
	}
	l.idx.remove(head.hash, r)
	for c := head.first; c != 0; {
		next := l.cells.at(c).next
		l.cells.put(c)
		c = next
	}
	l.heads.put(r)
	if l.last == r {
		l.last = 0
	}
}

// get returns the actions of a list in memory that the next call overwrites.
func (l *actionLists) get(r ref) action.Physical {
	if r == 0 {
		return nil
	}
	if l.last != r {
		l.unpacked, l.last = l.append(l.unpacked[:0], r), r
	}
	return l.unpacked
}

// append appends the actions of a list.
func (l *actionLists) append(dst action.Physical, r ref) action.Physical {
	l.packed = l.packed[:0]
	for c := l.heads.at(r).first; c != 0; c = l.cells.at(c).next {
		l.packed = append(l.packed, l.cells.at(c).data[:]...)
	}
	return unpack(dst, l.packed[:l.heads.at(r).size])
}

// short marks the op of an action whose address is IPv4 and takes four bytes.
const short = 0x80

// pack appends the actions: the op, then what counts for it.
func pack(b []byte, as action.Physical) []byte {
	le := binary.LittleEndian
	for i := range as {
		a := &as[i]
		at := len(b)
		b = append(b, byte(a.Op))
		switch a.Op {
		case action.SetEthSrc, action.SetEthDst:
			b = append(b, a.MAC[:]...)
		case action.SetTOS, action.SetSrcPort, action.SetDstPort, action.PushVLAN, action.CheckLen:
			b = le.AppendUint16(b, a.Value)
		case action.Output:
			b = le.AppendUint32(b, a.Port)
		case action.Tunnel:
			b = le.AppendUint32(le.AppendUint32(b, a.Port), a.Key)
			b = packAddr(b, at, a.Addr)
		case action.SetSrc, action.SetDst:
			b = packAddr(b, at, a.Addr)
		}
	}
	return b
}

func packAddr(b []byte, op int, a match.Addr) []byte {
	if a.Is4() {
		b[op] |= short
		return append(b, a[12:]...)
	}
	return append(b, a[:]...)
}

func unpack(dst action.Physical, b []byte) action.Physical {
	le := binary.LittleEndian
	for len(b) > 0 {
		a := action.Action{Op: action.Op(b[0] &^ short)}
		is4 := b[0]&short != 0
		b = b[1:]
		addr := func() {
			if is4 {
				a.Addr = match.Addr{10: 0xff, 11: 0xff}
				b = b[copy(a.Addr[12:], b):]
			} else {
				b = b[copy(a.Addr[:], b):]
			}
		}
		switch a.Op {
		case action.SetEthSrc, action.SetEthDst:
			b = b[copy(a.MAC[:], b):]
		case action.SetTOS, action.SetSrcPort, action.SetDstPort, action.PushVLAN, action.CheckLen:
			a.Value, b = le.Uint16(b), b[2:]
		case action.Output:
			a.Port, b = le.Uint32(b), b[4:]
		case action.Tunnel:
			a.Port, a.Key, b = le.Uint32(b), le.Uint32(b[4:]), b[8:]
			addr()
		case action.SetSrc, action.SetDst:
			addr()
		}
		dst = append(dst, a)
	}
	return dst
}
