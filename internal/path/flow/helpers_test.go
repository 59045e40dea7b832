package flow

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

var errFault = errors.New("injected")

// installer is a datapath's flow table that fails as told. Like a kernel, it may
// have done what it says has failed.
type installer struct {
	flows     map[match.Key]action.Physical
	max       int           // 0: unbounded
	putErr    map[int]error // by number of the flow put, counted over all calls
	delErr    map[int]bool  // by number of the call
	refuse    func(datapath.Flow) bool
	refuseErr error
	done      bool // a failed put took place all the same
	puts      int
	delCall   int
}

func newInstaller() *installer {
	return &installer{flows: map[match.Key]action.Physical{}, refuseErr: datapath.ErrActions}
}

func (d *installer) PutFlows(fs []datapath.Flow) (int, error) {
	for i, f := range fs {
		d.puts++
		if d.refuse != nil && d.refuse(f) {
			return i, d.refuseErr
		}
		if err := d.putErr[d.puts]; err != nil {
			if d.done {
				d.flows[f.Key] = slices.Clone(f.Actions)
			}
			return i, err
		}
		if _, ok := d.flows[f.Key]; !ok && d.max > 0 && len(d.flows) >= d.max {
			return i, fmt.Errorf("flow %d: %w", i, datapath.ErrFull)
		}
		d.flows[f.Key] = slices.Clone(f.Actions)
	}
	return len(fs), nil
}

func (d *installer) DelFlows(keys []match.Key) error {
	d.delCall++
	fails := d.delErr[d.delCall]
	for i, k := range keys {
		if fails && i >= len(keys)/2 {
			break
		}
		delete(d.flows, k)
	}
	if fails {
		return errFault
	}
	return nil
}

// check returns an error when the copy calls a flow installed that the datapath does
// not have so, or when the datapath has one that the copy neither knows nor is about to delete.
func (d *installer) check(t *Table) error {
	have := map[match.Key]bool{}
	for f := range t.Flows() {
		have[f.Key] = true
		as, ok := d.flows[f.Key]
		if f.Installed && (!ok || !slices.Equal(as, f.Entry.Actions())) {
			return fmt.Errorf("installed in the copy, not in the datapath: %+v", f.Key)
		}
	}
	for k := range d.flows {
		if !have[k] {
			if r := t.findExact(&k, t.hash(&k)); r == 0 || t.exacts.at(r).state != dying && t.answers(r) {
				return fmt.Errorf("in the datapath, unknown to the copy: %+v", k)
			}
		}
	}
	return nil
}

// consistent checks everything that the table counts or links twice.
func consistent(t *Table) error {
	var live, dead, puts, refs, spares int
	ports, masks := map[*port][2]int{}, map[*port]map[match.Mask]int{}
	sets, buried := map[ref]int{}, map[ref]bool{}
	lists := map[ref]uint32{}
	var err error
	fail := func(format string, a ...any) bool {
		err = fmt.Errorf(format, a...)
		return false
	}
	t.exactIdx.all(func(r ref) bool {
		f := t.exacts.at(r)
		if f.state == dying {
			return true
		}
		live++
		if f.state == queued {
			puts++
		}
		e := t.entries.at(f.entry)
		if e.mask.Apply(&f.key) != t.keyOf(e) {
			return fail("flow %+v does not match its entry", f.key)
		}
		p := t.portAt(e.port)
		n := ports[p]
		n[0]++
		ports[p] = n
		if e.dead && !buried[f.entry] {
			buried[f.entry] = true
			lists[e.actions]++
		}
		return true
	})
	for r := t.dels.head; r != 0; r = t.exacts.at(r).place.next {
		dead++
	}
	t.entryIdx.all(func(er ref) bool {
		e := t.entries.at(er)
		n, in := int32(0), 0
		for r := e.flows.head; r != 0; r = t.exacts.at(r).nbrs.next {
			n++
		}
		if n != e.nflows {
			return fail("entry counts %d flows, has %d", e.nflows, n)
		}
		if (e.spare == 0) != (n > 0) || e.dead {
			return fail("entry with %d flows: %+v", n, e)
		}
		if e.spare != 0 {
			spares++
		}
		p := t.portAt(e.port)
		l := p.idle[e.kind]
		if n > 0 {
			l = p.busy[e.kind]
		}
		for r := l.head; r != 0; r = t.entries.at(r).nbrs.next {
			if r == er {
				in++
			}
		}
		if in != 1 {
			return fail("entry is %d times in its port's list", in)
		}
		for r := e.tags; r != 0; r = t.tags.refs.at(r).more {
			refs++
		}
		if e.set != 0 {
			sets[e.set]++
		}
		lists[e.actions]++
		c := ports[p]
		c[1]++
		ports[p] = c
		if masks[p] == nil {
			masks[p] = map[match.Mask]int{}
		}
		masks[p][e.mask]++
		return true
	})
	if err != nil {
		return err
	}
	for r, want := range sets {
		n := 0
		for e := t.tags.sets.at(r).entries.head; e != 0; e = t.ofSet(e).next {
			n++
		}
		if n != want {
			return fmt.Errorf("set lists %d entries, %d have it", n, want)
		}
		for r := t.tags.sets.at(r).tags; r != 0; r = t.tags.refs.at(r).more {
			refs++
		}
	}
	for r, n := range lists {
		if r != 0 && t.lists.heads.at(r).uses != n {
			return fmt.Errorf("list of actions counts %d uses, has %d", t.lists.heads.at(r).uses, n)
		}
	}
	delete(lists, 0)
	for _, c := range []struct {
		what       string
		used, want int
	}{
		{"tags", used(&t.tags.refs), refs}, {"sets", used(&t.tags.sets), len(sets)}, {"lists", used(&t.lists.heads), len(lists)},
		{"entries", used(&t.entries), t.entryIdx.n + len(buried)}, {"flows", used(&t.exacts), t.exactIdx.n + spares},
	} {
		if c.used != c.want {
			return fmt.Errorf("%d %s are taken, %d in use", c.used, c.what, c.want)
		}
	}
	if live != t.live || dead != t.ndels || puts != t.nputs || live+dead != t.exactIdx.n {
		return fmt.Errorf("counted %d live, %d dying, %d queued; the table says %d, %d, %d of %d", live, dead, puts, t.live, t.ndels, t.nputs, t.exactIdx.n)
	}
	if live > t.cfg.MaxFlows || t.entryIdx.n > t.cfg.MaxFlows {
		return fmt.Errorf("%d flows, %d entries, allowed are %d", live, t.entryIdx.n, t.cfg.MaxFlows)
	}
	known := 0
	for _, p := range t.portList {
		if p.gone {
			if _, ok := ports[p]; !ok {
				ports[p] = [2]int{}
			}
		} else if t.ports[p.no] == p {
			known++
		} else if p.entries > 0 {
			return fmt.Errorf("port %d is not known", p.no)
		}
	}
	if len(ports) != len(t.portList) || known != len(t.ports) {
		return fmt.Errorf("%d ports in use, %d listed, %d of %d known", len(ports), len(t.portList), known, len(t.ports))
	}
	for p, n := range ports {
		if p.flows != n[0] || p.entries != n[1] || t.portAt(p.id) != p || t.portList[p.pos] != p {
			return fmt.Errorf("port %d: counts %d, %d, has %v", p.no, p.flows, p.entries, n)
		}
		for _, m := range p.masks {
			if masks[p][m.mask] != m.entries {
				return fmt.Errorf("port %d mask %s: counts %d, has %d", p.no, m.mask, m.entries, masks[p][m.mask])
			}
		}
		if len(p.masks) != len(masks[p]) || len(p.masks) > t.cfg.MaxMasks+1 {
			return fmt.Errorf("port %d: %d masks listed, %d used, allowed are %d", p.no, len(p.masks), len(masks[p]), t.cfg.MaxMasks)
		}
	}
	return nil
}

func used[T any](s *slab[T]) int { return int(s.next - s.spare) }

func newTable(tb testing.TB, cfg Config) (*Table, *installer, *clock.Manual) {
	tb.Helper()
	d, clk := newInstaller(), new(clock.Manual)
	return New(cfg, d, clk), d, clk
}

func flush(tb testing.TB, t *Table, d *installer) {
	tb.Helper()
	if err := t.Flush(); err != nil {
		tb.Fatal("Flush:", err)
	}
	if puts, dels := t.Pending(); puts+dels != 0 {
		tb.Fatalf("after Flush %d puts, %d deletes are pending", puts, dels)
	}
	if n := t.Stats().Flows; len(d.flows) != n {
		tb.Fatalf("the copy has %d flows, the datapath %d", n, len(d.flows))
	}
	if err := d.check(t); err != nil {
		tb.Fatal(err)
	}
	if err := consistent(t); err != nil {
		tb.Fatal(err)
	}
}

func out(port uint32) action.Physical { return action.Physical{{Op: action.Output, Port: port}} }
