package flow

import (
	"errors"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

const (
	batch    = 512 // flows per request to the datapath
	maxFull  = 8   // times that one Flush makes room for a full datapath
	maxFails = 8   // flows that one Flush gives up for other errors
)

// Pending is how many puts and deletes wait for Flush.
func (t *Table) Pending() (puts, dels int) { return t.nputs, t.ndels }

// Flush sends what is queued: deletes, then puts, so that an invalidation that
// came after an install wins. What the datapath refuses leaves the copy: its next packet
// finds the wildcard entry and tries again. ErrActions makes the entry
// user-space only, ErrKey no more than the one key; ErrFull makes room at the cost of the port with the most
// flows. The error returned joins those that were not dealt with in this way;
// then some deletes or puts are still queued.
func (t *Table) Flush() error {
	errDel := t.flushDels()
	errPut := t.flushPuts()
	if t.dels.head != 0 { // not yet deleted, or refused just now
		errDel = t.flushDels()
	}
	return errors.Join(errDel, errPut)
}

func (t *Table) flushDels() error {
	for t.dels.head != 0 {
		keys := t.delBatch[:0]
		for r := t.dels.head; r != 0 && len(keys) < batch; r = t.exacts.at(r).place.next {
			keys = append(keys, t.exacts.at(r).key)
		}
		if err := t.inst.DelFlows(keys); err != nil {
			t.stats.DelErrors++
			return err
		}
		t.stats.Deleted += uint64(len(keys))
		for range keys {
			r := t.dels.head
			t.ofPlace.remove(&t.dels, r)
			t.ndels--
			t.free(r)
		}
	}
	return nil
}

func (t *Table) flushPuts() error {
	var full, fails int
	for t.puts.head != 0 {
		n, err := t.putSome()
		if err == nil {
			if n == 0 {
				return errors.New("flow: datapath installed nothing and gave no reason")
			}
			continue
		}
		// Whether the datapath holds the one that failed is not known.
		r := t.puts.head
		f := t.exacts.at(r)
		f.present = true
		e := t.entries.at(f.entry)
		switch {
		case errors.Is(err, datapath.ErrActions):
			t.stats.UserSpace++
			e.user = true
			for e.flows.head != 0 {
				t.dropFlow(e.flows.head)
			}
		case errors.Is(err, datapath.ErrKey): // its next packet finds the entry again, without simulation
			t.stats.Coarse++
			t.dropFlow(r)
		case errors.Is(err, datapath.ErrFull):
			if full++; full > maxFull {
				t.dropQueued()
				return nil
			}
			// Twice as many each time: few requests, whatever the datapath's bound is.
			for i := 0; i < 1<<full; i++ {
				if !t.evictFlow(t.portAt(e.port)) {
					break
				}
			}
			if err := t.flushDels(); err != nil {
				return err
			}
		default:
			t.stats.PutErrors++
			t.dropFlow(r)
			if fails++; fails == maxFails || errors.Is(err, datapath.ErrClosed) {
				return err
			}
		}
	}
	return nil
}

// putSome sends the first puts of the queue and confirms those that were installed.
func (t *Table) putSome() (int, error) {
	fs, refs, acts := t.putBatch[:0], t.putRefs[:0], t.putActs[:0]
	last, at := ref(0), 0 // neighbours mostly have the same actions
	for r := t.puts.head; r != 0 && len(fs) < batch; r = t.exacts.at(r).place.next {
		f := t.exacts.at(r)
		if as := t.entries.at(f.entry).actions; as != last || as == 0 {
			last, at = as, len(acts)
			if as != 0 {
				acts = t.lists.append(acts, as)
			}
		}
		fs = append(fs, datapath.Flow{Key: f.key, Actions: acts[at:]})
		refs = append(refs, r)
	}
	t.putActs = acts
	n, err := t.inst.PutFlows(fs)
	for _, r := range refs[:n] {
		t.confirm(r)
	}
	t.stats.Installed += uint64(n)
	return n, err
}

// dropQueued gives up what is queued: others have filled the datapath.
func (t *Table) dropQueued() {
	for t.puts.head != 0 {
		t.stats.Refused++
		t.dropFlow(t.puts.head)
	}
}
