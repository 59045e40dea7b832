package flow

import (
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Most tags of an entry are those of the devices and ports that its packets pass: thousands of entries have the same ones. They are
// kept once, as a set, with a list of the entries. Tags of what is particular to a destination or a connection are the
// entry's own.
//
// Hashes are cut to 32 bits: one invalidation in thousands hits an entry more than it should, which is then decided again.

// own reports a kind whose tags an entry has for itself.
func own(k tag.Kind) bool {
	switch k {
	case tag.Route, tag.Connection, tag.Translation, tag.Destination, tag.Affinity, tag.Member, tag.Floating:
		return true
	}
	return false
}

// tagRef says that a holder, an entry or a set, carries a tag.
type tagRef struct {
	hash   uint32
	holder ref   // of an entry, or isSet + that of a set
	more   ref   // the holder's next tag
	nbrs   links // among those with the same tag; the index, or a stale tag, holds the first
}

const isSet ref = 1 << 31

// tagSet is a list of tags with the entries that have it. It goes with the last of them.
type tagSet struct {
	digest  [2]uint64
	tags    ref // first tagRef
	kept    ref // what its entries hold on to together
	entries list
	born    uint32 // epoch: see stale.go
	checked uint32 // epoch in which none of its tags was stale
}

// tagIndex finds what depends on a thing.
type tagIndex struct {
	refs   slab[tagRef]
	idx    index // first tagRef by hash
	sets   slab[tagSet]
	setIdx index

	own    []uint32  // scratch: hashes of the tags that the entry at hand has for itself
	common []tag.Tag // and its other tags

	before []tag.Tag // common of the entry before, mostly the same
	digest [2]uint64 // of before
}

// split sorts the tags of an entry into its own, each once, and those of its set.
func (x *tagIndex) split(tags []tag.Tag) {
	x.own, x.common = x.own[:0], x.common[:0]
	for i := range tags {
		if !own(tags[i].Kind) {
			x.common = append(x.common, tags[i])
		} else if h := uint32(tags[i].Hash()); !slices.Contains(x.own, h) {
			x.own = append(x.own, h)
		}
	}
}

func (x *tagIndex) find(hash uint32) ref {
	_, r := x.idx.first(hash) // the whole hash is in the index
	return r
}

// add puts a tag before more, the holder's other tags, and returns the new first one.
func (x *tagIndex) add(holder ref, hash uint32, more ref) ref {
	r := x.refs.get()
	n := x.refs.at(r)
	*n = tagRef{hash: hash, holder: holder, more: more}
	first := x.find(hash)
	if first == 0 {
		x.idx.insert(hash, r)
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

// drop removes all tags of a holder, of which r is the first.
func (t *Table) dropTags(r ref) {
	x := &t.tags
	for r != 0 {
		n := x.refs.at(r)
		if n.nbrs.next != 0 {
			x.refs.at(n.nbrs.next).nbrs.prev = n.nbrs.prev
		}
		if n.nbrs.prev != 0 {
			x.refs.at(n.nbrs.prev).nbrs.next = n.nbrs.next
		} else if s := t.stale.starts(r, n.hash); s != nil {
			s.head = n.nbrs.next
		} else {
			x.idx.remove(n.hash, r)
			if n.nbrs.next != 0 {
				x.idx.insert(n.hash, n.nbrs.next)
			}
		}
		x.refs.put(r)
		r = n.more
	}
}

// setFor finds or makes the set of x.common, for one more entry, whose key is t.key. 0: no tags.
func (t *Table) setFor() ref {
	x := &t.tags
	if len(x.common) == 0 {
		return 0
	}
	if !tag.Same(x.common, x.before) {
		x.digest = tag.Digest(x.common)
		x.before = append(x.before[:0], x.common...)
	}
	digest := x.digest
	if t.cfg.Holds != nil { // entries that hold on to others of the tags have another set
		for i := range x.common {
			if t.cfg.Holds(&t.key, &x.common[i]) {
				digest[1] = (digest[1] ^ uint64(i)) * 0x9e3779b97f4a7c15
			}
		}
	}
	h := uint32(digest[0])
	for p, r := x.setIdx.first(h); r != 0; p, r = x.setIdx.next(p, h) {
		if x.sets.at(r).digest == digest && !t.staleSet(r) {
			return r
		}
	}
	r := x.sets.get()
	s := x.sets.at(r)
	*s = tagSet{digest: digest, born: t.stale.epoch}
	for i := range x.common {
		if h := uint32(x.common[i].Hash()); !x.carries(s.tags, h) { // paths come by the same device more than once
			s.tags = x.add(isSet|r, h, s.tags)
		}
	}
	s.kept = t.hold(x.common, false)
	x.setIdx.insert(h, r)
	return r
}

// carries reports whether a hash is among a holder's tags, of which r is the first.
func (x *tagIndex) carries(r ref, hash uint32) bool {
	for ; r != 0; r = x.refs.at(r).more {
		if x.refs.at(r).hash == hash {
			return true
		}
	}
	return false
}

// tag gives an entry its tags, and has it hold on to what they say; t.key is its key.
func (t *Table) tag(r ref, tags []tag.Tag) {
	t.tags.split(tags)
	e := t.entries.at(r)
	for _, h := range t.tags.own {
		e.tags = t.tags.add(r, h, e.tags)
	}
	e.kept = t.hold(tags, true)
	if e.set = t.setFor(); e.set != 0 {
		t.ofSet.push(&t.tags.sets.at(e.set).entries, r)
	}
}

// untag takes them from it, and lets go.
func (t *Table) untag(r ref) {
	e := t.entries.at(r)
	t.dropTags(e.tags)
	t.release(e.kept)
	e.tags, e.kept = 0, 0
	if e.set == 0 {
		return
	}
	s := t.tags.sets.at(e.set)
	if t.ofSet.remove(&s.entries, r); s.entries.head == 0 {
		t.dropTags(s.tags)
		t.release(s.kept)
		t.tags.setIdx.remove(uint32(s.digest[0]), e.set)
		t.tags.sets.put(e.set)
	}
	e.set = 0
}

// Depends reports whether any entry that is valid carries a tag of this hash.
func (t *Table) Depends(hash uint64) bool { return t.tags.find(uint32(hash)) != 0 }
