package flow

import "github.com/viaduct-net/viaduct/internal/base/offheap"

// ref is a position in a slab. 0 is no position.
type ref uint32

const chunk = 1024

// slab hands out values of T, which has no pointers, by ref and takes them back. Values never move, memory is taken in chunks and reused, so that a
// steady state allocates nothing, and none of it is the garbage collector's: see offheap. The slab must stay reachable while its values are used.
type slab[T any] struct {
	mem   offheap.Memory
	taken []*block[T]
	next  ref // the last that was ever handed out
	spare ref // how many were put back
}

// block is what is taken at once: values, and room for as many refs that are put back, so that putting back takes no memory.
type block[T any] struct {
	values [chunk]T
	spare  [chunk]ref
}

// at is the value at r, which must not be 0.
func (s *slab[T]) at(r ref) *T { return &s.taken[r/chunk].values[r%chunk] }

// get hands out a value as put left it, or a zero one.
func (s *slab[T]) get() ref {
	if s.spare > 0 {
		s.spare--
		return *s.spareAt(s.spare)
	}
	s.next++
	if int(s.next/chunk) >= len(s.taken) {
		s.taken = append(s.taken, &offheap.Make[block[T]](&s.mem, 1)[0])
	}
	return s.next
}

func (s *slab[T]) put(r ref) {
	*s.spareAt(s.spare) = r
	s.spare++
}

func (s *slab[T]) spareAt(n ref) *ref { return &s.taken[n/chunk].spare[n%chunk] }

// links chain a value into a list; each list that a value can be in has its own.
type links struct{ prev, next ref }

// list is a doubly linked list of refs, oldest first.
type list struct{ head, tail ref }

// lister finds the links of a ref for one sort of list.
type lister func(ref) *links

func (of lister) push(l *list, r ref) {
	*of(r) = links{prev: l.tail}
	if l.tail != 0 {
		of(l.tail).next = r
	} else {
		l.head = r
	}
	l.tail = r
}

func (of lister) remove(l *list, r ref) {
	n := of(r)
	if n.prev != 0 {
		of(n.prev).next = n.next
	} else {
		l.head = n.next
	}
	if n.next != 0 {
		of(n.next).prev = n.prev
	} else {
		l.tail = n.prev
	}
	*n = links{}
}
