package flow

import "github.com/viaduct-net/viaduct/internal/base/tag"

// tagRef says that an entry, or all of a set, depends on a thing.
type tagRef struct {
	hash uint64
	of   ref   // an entry, or a set (ofSet)
	more ref   // the next tag of the same
	nbrs links // among those with the same tag; the index holds the first
}

// ofSet marks in tagRef.of a place among the sets.
const ofSet ref = 1 << 31

// tagSet is what many entries depend on together: the devices, ports and chains on their way. Only what is an entry's own, its
// connections, is not in it. So an entry costs one link in place of a dozen, to add and to remove.
type tagSet struct {
	digest  [2]uint64
	tags    ref  // first tagRef
	entries list // there is one
}

// tagIndex finds the entries that depend on a thing.
type tagIndex struct {
	refs   slab[tagRef]
	idx    index
	sets   slab[tagSet]
	setIdx index
	of     lister    // entries of a set
	common []tag.Tag // scratch
}

// own reports a tag that no entry is likely to share with many.
func own(t *tag.Tag) bool { return t.Kind.IsConnection() || t.Kind == tag.Affinity }

// tie has entry r depend on tags. It returns what untie needs: the set, 0 if there is none, and the first of its own tags.
func (x *tagIndex) tie(r ref, tags []tag.Tag) (set, first ref) {
	x.common = x.common[:0]
	for i := range tags {
		if own(&tags[i]) {
			first = x.add(r, &tags[i], first)
		} else {
			x.common = append(x.common, tags[i])
		}
	}
	if len(x.common) == 0 {
		return 0, first
	}
	digest := tag.Digest(x.common)
	if set = x.findSet(digest); set == 0 {
		set = x.sets.get()
		s := x.sets.at(set)
		*s = tagSet{digest: digest}
		for i := range x.common {
			s.tags = x.add(set|ofSet, &x.common[i], s.tags)
		}
		x.setIdx.insert(uint32(digest[0]), set)
	}
	x.of.push(&x.sets.at(set).entries, r)
	return set, first
}

// untie undoes tie.
func (x *tagIndex) untie(r, set, first ref) {
	x.drop(first)
	if set == 0 {
		return
	}
	s := x.sets.at(set)
	if x.of.remove(&s.entries, r); s.entries.head == 0 {
		x.drop(s.tags)
		x.setIdx.remove(uint32(s.digest[0]), set)
		x.sets.put(set)
	}
}

func (x *tagIndex) findSet(digest [2]uint64) ref {
	for p, r := x.setIdx.first(uint32(digest[0])); r != 0; p, r = x.setIdx.next(p, uint32(digest[0])) {
		if x.sets.at(r).digest == digest {
			return r
		}
	}
	return 0
}

// entry is one that depends on what has this hash; 0: there is none.
func (x *tagIndex) entry(hash uint64) ref {
	r := x.find(hash)
	if r == 0 {
		return 0
	}
	if r = x.refs.at(r).of; r&ofSet != 0 {
		return x.sets.at(r &^ ofSet).entries.head
	}
	return r
}

func (x *tagIndex) find(hash uint64) ref {
	for p, r := x.idx.first(uint32(hash)); r != 0; p, r = x.idx.next(p, uint32(hash)) {
		if x.refs.at(r).hash == hash {
			return r
		}
	}
	return 0
}

// add puts t before more, the other tags of the same entry or set, and returns the new first one.
func (x *tagIndex) add(of ref, t *tag.Tag, more ref) ref {
	r := x.refs.get()
	n := x.refs.at(r)
	*n = tagRef{hash: t.Hash(), of: of, more: more}
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

// drop removes all tags of an entry or set, of which r is the first.
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
