package prep

// A flow is in one list of each of these kinds.
const (
	byAge = iota
	byPort
	byWait
	numLists
)

// links are a flow's neighbours in a list.
type links struct{ prev, next *flow }

// list is doubly linked through the flows themselves, oldest first.
type list struct {
	which      int
	head, tail *flow
}

func (l *list) push(f *flow) {
	f.links[l.which] = links{prev: l.tail}
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.links[l.which].next = f
	}
	l.tail = f
}

func (l *list) remove(f *flow) {
	at := f.links[l.which]
	if at.prev == nil {
		l.head = at.next
	} else {
		at.prev.links[l.which].next = at.next
	}
	if at.next == nil {
		l.tail = at.prev
	} else {
		at.next.links[l.which].prev = at.prev
	}
}
