package flow

import "github.com/viaduct-net/viaduct/internal/base/tag"

// tagRef says that an entry carries a tag.
type tagRef struct {
	hash  uint64
	entry ref
	more  ref   // the entry's next tag
	nbrs  links // among those with the same tag; the index holds the first
}

// tagIndex finds the entries that depend on a thing.
type tagIndex struct {
	refs slab[tagRef]
	idx  index
}

func (x *tagIndex) find(hash uint64) ref {
	for p, r := x.idx.first(uint32(hash)); r != 0; p, r = x.idx.next(p, uint32(hash)) {
		if x.refs.at(r).hash == hash {
			return r
		}
	}
	return 0
}

// add puts t before more, the entry's other tags, and returns the new first one.
func (x *tagIndex) add(e ref, t *tag.Tag, more ref) ref {
	r := x.refs.get()
	n := x.refs.at(r)
	*n = tagRef{hash: t.Hash(), entry: e, more: more}
	first := x.find(n.hash)
	if first == 0 {
		x.idx.insert(uint32(n.hash), r)
		return r
	}
	// Behind the first, so that the index need not change.
	f := x.refs.at(first)
	n.nbrs = links{prev: first, next: f.nbrs.next}
	if n.nbrs.next != 0 {
		x.refs.at(n.nbrs.next).nbrs.prev = r
	}
	f.nbrs.next = r
	return r
}

// drop removes all tags of an entry, of which r is the first.
func (x *tagIndex) drop(r ref) {
	for r != 0 {
		n := x.refs.at(r)
		if n.nbrs.next != 0 {
			x.refs.at(n.nbrs.next).nbrs.prev = n.nbrs.prev
		}
		if n.nbrs.prev != 0 {
			x.refs.at(n.nbrs.prev).nbrs.next = n.nbrs.next
		} else {
			x.idx.remove(uint32(n.hash), r)
			if n.nbrs.next != 0 {
				x.idx.insert(uint32(n.hash), n.nbrs.next)
			}
		}
		x.refs.put(r)
		r = n.more
	}
}
