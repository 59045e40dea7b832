package flow

import "github.com/viaduct-net/viaduct/internal/base/tag"

// keptTag is a tag that an entry holds on to (Config.Hold), or all entries of a set.
type keptTag struct {
	tag    tag.Tag
	handle uint64
	more   ref
}

// hold holds on to those of the tags that an entry with the key t.key does, each once: those that entries have for themselves (mine), or the
// others. It returns the first.
func (t *Table) hold(tags []tag.Tag, mine bool) (first ref) {
	if t.cfg.Holds == nil {
		return 0
	}
	last := ref(0)
	for i := range tags {
		tg := &tags[i]
		if own(tg.Kind) != mine || !t.cfg.Holds(&t.key, tg) || t.keeps(first, tg) { // paths come by the same thing more than once
			continue
		}
		handle, ok := t.cfg.Hold(tg)
		if !ok {
			continue
		}
		r := t.kept.get()
		*t.kept.at(r) = keptTag{tag: *tg, handle: handle}
		if last == 0 {
			first = r
		} else {
			t.kept.at(last).more = r
		}
		last = r
	}
	return first
}

func (t *Table) keeps(first ref, tg *tag.Tag) bool {
	for r := first; r != 0; r = t.kept.at(r).more {
		if t.kept.at(r).tag == *tg {
			return true
		}
	}
	return false
}

// keptTags are those that an entry holds on to, in memory that the next call overwrites.
func (t *Table) keptTags(e *entry) []tag.Tag {
	t.keep = t.appendKept(t.keep[:0], e.kept)
	if e.set != 0 {
		t.keep = t.appendKept(t.keep, t.tags.sets.at(e.set).kept)
	}
	return t.keep
}

func (t *Table) appendKept(to []tag.Tag, first ref) []tag.Tag {
	for r := first; r != 0; r = t.kept.at(r).more {
		to = append(to, t.kept.at(r).tag)
	}
	return to
}

// release lets go of what hold has returned.
func (t *Table) release(first ref) {
	for r := first; r != 0; {
		k := t.kept.at(r)
		t.cfg.Release(&k.tag, k.handle)
		more := k.more
		t.kept.put(r)
		r = more
	}
}
