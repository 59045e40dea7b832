package flow

import (
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Keep takes over a flow that an earlier agent left in the datapath, after its key was simulated
// anew: like Add, except that the flow is put only if the actions it has,
// installed, are not those decided now. An equal entry that is already there is shared.
func (t *Table) Keep(k *match.Key, mask match.Mask, as action.Physical, tags []tag.Tag, kind Kind, installedAs action.Physical) Entry {
	e := t.sameEntry(k, mask, as, kind)
	if e == 0 {
		e = t.addEntry(k, mask, as, tags, kind)
	}
	r := t.attach(k, e)
	if r == 0 {
		return Entry{t, e}
	}
	t.exacts.at(r).present = true
	if t.exacts.at(r).state == queued && slices.Equal(as, installedAs) {
		t.stats.Adopted++
		t.confirm(r)
	}
	return Entry{t, e}
}

func (t *Table) sameEntry(k *match.Key, mask match.Mask, as action.Physical, kind Kind) ref {
	mask |= match.InPort
	mk := mask.Apply(k)
	r := t.findEntry(&mk, mask, t.maskedHash(&mk, mask))
	if r == 0 {
		return 0
	}
	if e := t.entries.at(r); e.kind == kind && !t.invalid(e) && slices.Equal(t.lists.get(e.actions), as) {
		return r
	}
	return 0
}

// Forget queues the deletion of whatever the datapath holds under k, known
// or not: a flow left by an earlier agent that would not be decided now.
func (t *Table) Forget(k *match.Key) {
	h := t.hash(k)
	r := t.findExact(k, h)
	if r == 0 {
		if t.ndels >= t.maxDying() {
			t.stats.Refused++ // the next dump finds it again
			return
		}
		r = t.exacts.get()
		*t.exacts.at(r) = exact{key: *k, state: dying, present: true}
		t.exactIdx.insert(h, r)
		t.ofPlace.push(&t.dels, r)
		t.ndels++
		return
	}
	if f := t.exacts.at(r); f.state != dying {
		f.present = true
		t.dropFlow(r)
	}
}

// Audit compares a flow read back from the datapath with the copy and takes its
// counters, as Used does. A flow that nobody owns is queued for deletion, one whose
// actions differ is queued to be put again; then ok is false. A flow that is
// about to change is left alone.
func (t *Table) Audit(info *datapath.FlowInfo) (ok bool) {
	r := t.findExact(&info.Key, t.hash(&info.Key))
	if r == 0 {
		t.stats.Orphans++
		t.Forget(&info.Key)
		return false
	}
	f := t.exacts.at(r)
	if !t.answers(r) {
		return true
	}
	t.use(r, info.Idle, info.Packets, info.Bytes)
	if f.state == installed && !slices.Equal(t.lists.get(t.entries.at(f.entry).actions), info.Actions) {
		t.stats.Differing++
		t.requeue(r)
		return false
	}
	return true
}
