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
			if r := t.findExact(&k, t.hash(&k)); r == 0 || t.exacts.at(r).state != dying {
				return fmt.Errorf("in the datapath, unknown to the copy: %+v", k)
			}
		}
	}
	return nil
}

// consistent checks everything that the table counts or links twice.
func consistent(t *Table) error {
	var live, dead, puts, refs int
	ports, masks := map[*port][2]int{}, map[*port]map[match.Mask]int{}
	sets := map[ref]int{}
	for f := range t.Flows() {
		live++
		if !f.Installed {
			puts++
		}
		if m := f.Entry.mask; m.Apply(&f.Key) != f.Entry.key {
			return fmt.Errorf("flow %+v does not match its entry", f.Key)
		}
		n := ports[f.Entry.port]
		n[0]++
		ports[f.Entry.port] = n
	}
	for r := t.dels.head; r != 0; r = t.exacts.at(r).queue.next {
		dead++
	}
	for e := range t.Entries() {
		n, in := 0, 0
		for r := e.flows.head; r != 0; r = t.exacts.at(r).nbrs.next {
			n++
		}
		if n != e.nflows {
			return fmt.Errorf("entry counts %d flows, has %d", e.nflows, n)
		}
		l := e.port.idle[e.kind]
		if n > 0 {
			l = e.port.busy[e.kind]
		}
		for r := l.head; r != 0; r = t.entries.at(r).nbrs.next {
			if r == e.self {
				in++
			}
		}
		if in != 1 {
			return fmt.Errorf("entry is %d times in its port's list", in)
		}
		refs += t.tags.chain(e.tags)
		if e.set != 0 {
			sets[e.set]++
		}
		c := ports[e.port]
		c[1]++
		ports[e.port] = c
		if masks[e.port] == nil {
			masks[e.port] = map[match.Mask]int{}
		}
		masks[e.port][e.mask]++
	}
	if live != t.live || dead != t.ndels || puts != t.nputs || live+dead != t.exactIdx.n {
		return fmt.Errorf("counted %d live, %d dying, %d queued; the table says %d, %d, %d of %d", live, dead, puts, t.live, t.ndels, t.nputs, t.exactIdx.n)
	}
	if live > t.cfg.MaxFlows || t.entryIdx.n > t.cfg.MaxFlows {
		return fmt.Errorf("%d flows, %d entries, allowed are %d", live, t.entryIdx.n, t.cfg.MaxFlows)
	}
	for set, n := range sets {
		refs += t.tags.chain(t.tags.sets.at(set).tags)
		for r := t.tags.sets.at(set).entries.head; r != 0; r = t.entries.at(r).peers.next {
			n--
		}
		if n != 0 {
			return fmt.Errorf("%d entries more have a set than it knows", n)
		}
	}
	if used := int(t.tags.sets.next) - len(t.tags.sets.free); used != len(sets) || used != t.tags.setIdx.n {
		return fmt.Errorf("entries have %d sets of tags, there are %d, and %d in the index", len(sets), used, t.tags.setIdx.n)
	}
	if used := int(t.tags.refs.next) - len(t.tags.refs.free); used != refs {
		return fmt.Errorf("entries have %d tags, the index %d", refs, used)
	}
	if len(ports) != len(t.portList) || len(ports) != len(t.ports) {
		return fmt.Errorf("%d ports in use, %d listed, %d known", len(ports), len(t.portList), len(t.ports))
	}
	for p, n := range ports {
		if p.flows != n[0] || p.entries != n[1] || t.ports[p.no] != p || t.portList[p.pos] != p {
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

func (x *tagIndex) chain(r ref) (n int) {
	for ; r != 0; r = x.refs.at(r).more {
		n++
	}
	return n
}

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
