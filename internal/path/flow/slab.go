package flow

// ref is a position in a slab. 0 is no position.
type ref uint32

const chunk = 256

// slab hands out values of T by ref and takes them back. Values never move,
// memory is taken in chunks and reused, so that a steady state allocates
// nothing, and a T without pointers costs the garbage collector nothing.
type slab[T any] struct {
	chunks []*[chunk]T
	free   []ref
	next   ref // never handed out yet
}

// at is the value at r, which must not be 0.
func (s *slab[T]) at(r ref) *T { return &s.chunks[r/chunk][r%chunk] }

// get hands out a value as put left it, or a zero one.
func (s *slab[T]) get() ref {
	if n := len(s.free); n > 0 {
		r := s.free[n-1]
		s.free = s.free[:n-1]
		return r
	}
	s.next++
	if int(s.next/chunk) >= len(s.chunks) {
		s.chunks = append(s.chunks, new([chunk]T))
	}
	return s.next
}

func (s *slab[T]) put(r ref) { s.free = append(s.free, r) }

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
