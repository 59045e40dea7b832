package ebpf

import (
	"reflect"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
)

// What somebody has put into the kernel's table, changed or removed behind the agent's back is found by reading it back, and mended: a
// flow that nobody owns goes, one that differs is put again, with one step or several; one that is missing is put again
// when a packet asks for it.
func TestAuditOfTheKernelsTable(t *testing.T) {
	d, clk := openTest(t, testOptions(t)), new(clock.Manual)
	tb := flow.New(flow.Config{}, d, clk)
	want := map[match.Key]action.Physical{}
	to := func(port uint32) action.Physical {
		return action.Physical{{Op: action.DecTTL}, {Op: action.Output, Port: port}}
	}
	for i := range 2000 {
		k := testKey(1, testFrame(uint16(i)))
		as := to(2)
		if i%10 == 0 {
			as = append(as, action.Action{Op: action.Output, Port: 3})
		}
		tb.Add(&k, match.All, as, nil, flow.Normal)
		want[k] = as
	}
	mend := func() {
		t.Helper()
		if err := tb.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	audit := func() (wrong int) {
		t.Helper()
		if err := d.DumpFlows(func(f *datapath.FlowInfo) bool {
			if !tb.Audit(f) {
				wrong++
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		mend()
		return wrong
	}
	mend()
	if n := audit(); n != 0 {
		t.Fatalf("%d flows of an untouched table are wrong", n)
	}
	var behind []datapath.Flow
	for i := range 100 {
		behind = append(behind, datapath.Flow{Key: testKey(9, testFrame(uint16(i))), Actions: to(4)}) // foreign
	}
	for i := range 200 { // wrong: drops, another port, more steps, fewer
		as := []action.Physical{nil, to(5), append(to(2), to(3)...), to(2)}[i%4]
		behind = append(behind, datapath.Flow{Key: testKey(1, testFrame(uint16(i))), Actions: as})
	}
	if _, err := d.PutFlows(behind); err != nil {
		t.Fatal(err)
	}
	differ := 0
	for _, f := range behind[100:] {
		if !reflect.DeepEqual([]action.Action(want[f.Key]), []action.Action(f.Actions)) {
			differ++
		}
	}
	lost := testKey(1, testFrame(1500))
	if err := d.DelFlows([]match.Key{lost}); err != nil {
		t.Fatal(err)
	}
	if n := audit(); n != 100+differ {
		t.Errorf("%d flows were found wrong, want 100 foreign ones and %d that differ", n, differ)
	}
	clk.Advance(2 * time.Second)
	if _, ok := tb.Exact(&lost); !ok { // its packet has missed
		t.Error("the copy has lost it too")
	}
	mend()
	if s := tb.Stats(); s.Orphans != 100 || s.Differing != uint64(differ) || s.Repaired != 1 {
		t.Errorf("%d orphans, %d differing, %d repaired", s.Orphans, s.Differing, s.Repaired)
	}
	got := map[match.Key]action.Physical{}
	if err := d.DumpFlows(func(f *datapath.FlowInfo) bool {
		got[f.Key] = append(action.Physical{}, f.Actions...)
		return true
	}); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("the table has %d flows, want %d, or others: %v", len(got), len(want), err)
	}
	if n, m := entries(t, d.maps.WideSteps), 2*200; n != m {
		t.Errorf("%d wide steps are left, want %d", n, m)
	}
}

// Installing and deleting in batches allocates nothing once buffers have grown; reading back allocates for a batch, however many
// flows there are.
func TestFlowsDoNotAllocate(t *testing.T) {
	d := openTest(t, testOptions(t))
	var fs []datapath.Flow
	var keys []match.Key
	for i := range 2000 {
		as := action.Physical{{Op: action.DecTTL}, {Op: action.Output, Port: 2}}
		if i%50 == 0 {
			as = append(as, action.Action{Op: action.Output, Port: 3})
		}
		k := testKey(1, testFrame(uint16(i)))
		fs, keys = append(fs, datapath.Flow{Key: k, Actions: as}), append(keys, k)
	}
	cycle := func() {
		if _, err := d.PutFlows(fs); err != nil {
			t.Fatal(err)
		}
		if err := d.DelFlows(keys); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	if n := testing.AllocsPerRun(20, cycle); n > 40*4 { // the map library, for each of the forty flows with wide steps and each batch
		t.Errorf("%v allocations to install and delete %d flows", n, len(fs))
	}
	dump := func() {
		if err := d.DumpFlows(func(*datapath.FlowInfo) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.PutFlows(fs[1:50]); err != nil { // none of them wide
		t.Fatal(err)
	}
	few := testing.AllocsPerRun(20, dump)
	for i := range fs {
		fs[i].Actions = fs[1].Actions
	}
	if _, err := d.PutFlows(fs); err != nil {
		t.Fatal(err)
	}
	if many := testing.AllocsPerRun(20, dump); many > few+20 {
		t.Errorf("%v allocations to read %d flows, %v for 49", many, len(fs), few)
	} else {
		t.Logf("%v allocations to read %d flows, %v for 49", many, len(fs), few)
	}
}
