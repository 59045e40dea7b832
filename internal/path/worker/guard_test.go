package worker

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// broken has f run while the worker's simulations panic: they find no topology.
func (r *rig) broken(f func()) {
	topology := r.w.snapshot
	r.w.snapshot = nil
	f()
	r.w.snapshot = topology
}

func (r *rig) faults() (told *[]Fault) {
	told = new([]Fault)
	r.w.onFault = func(f Fault) { *told = append(*told, f) }
	return told
}

// A packet that the worker panics at is dropped under a name, its token goes back (check of the rig), and the next one is served.
func TestFaultEndsOnePacket(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	told := r.faults()
	r.clk.Advance(time.Second)
	frame := r.topo.MustInject(aToC).View.Frame
	r.broken(func() {
		for range 20 { // more than a batch
			r.in(aToC)
		}
		r.turn()
	})
	r.expect()
	c := r.w.Counts()
	if c.In != 20 || c.Dropped[drop.Internal] != 20 || c.Faults != 20 || r.flows() != 0 {
		t.Errorf("%d flows, %+v", r.flows(), c)
	}
	no, _ := r.ports.Local(pathtest.ID("a"))
	if len(*told) != 1 {
		t.Fatalf("told of %d", len(*told))
	}
	if f := (*told)[0]; !bytes.Equal(f.Frame, frame) || f.Port != no || !strings.Contains(string(f.Stack), "sim.") || f.More != 0 {
		t.Errorf("%v %x port %d more %d\n%s", f.Panic, f.Frame, f.Port, f.More, f.Stack)
	}
	r.clk.Advance(time.Second)
	r.broken(func() { r.in(aToC); r.turn() })
	if len(*told) != 2 || (*told)[1].More != 19 {
		t.Errorf("told %+v", *told)
	}
	r.in(aToC)
	r.turn()
	r.expect("c < ")
}

// One that has already ended when the panic comes is not counted twice: here what it has a device make cannot be counted.
func TestFaultAfterTheEnd(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	replies := r.w.replies
	r.w.replies.whole = nil // a write panics
	r.in("a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1")
	r.turn()
	r.expect()
	if c := r.w.Counts(); c.Consumed != 1 || c.Faults != 1 || c.Dropped[drop.Internal] != 0 {
		t.Errorf("%+v", c)
	}
	r.w.replies = replies
	r.in("a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1")
	r.turn()
	r.expect("a < ")
}

// Packets that waited, and those that devices make.
func TestFaultOfWaitingAndMade(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	const stranger = "a udp eth=a>r:blue ip=10.0.1.10>10.0.2.77 ports=1000>53"
	r.in(stranger, stranger, stranger)
	r.turn()
	if c := r.w.Counts(); c.Waiting != 3 {
		t.Fatalf("%+v", c)
	}
	r.got() // the router's question
	before := r.w.Counts()
	r.broken(func() {
		r.w.made.add(pathtest.ID("r:red"), r.topo.MustInject(stranger).View.Frame, 0)
		r.w.runMade()
		r.turn()
	})
	if c := r.w.Counts(); c.Made != before.Made+1 || c.Dropped[drop.Internal] != 1 || c.Waiting != 3 {
		t.Errorf("made: %+v", c)
	}
	woken := r.w.lot.Expire(1<<62, nil)
	r.broken(func() { r.w.restart(woken); r.turn() })
	if c := r.w.Counts(); len(woken) != 3 || c.Waiting != 0 || c.Dropped[drop.Internal] != 4 {
		t.Errorf("%d waited: %+v", len(woken), c)
	}
}

// A flow that cannot be decided anew is taken back, and the others are not left alone; a trace says what happened.
func TestFaultOfFlowsAndTraces(t *testing.T) {
	r := newRig(t, twoSubnets, Config{})
	r.in(aToC)
	r.turn()
	r.expect("c < ")
	var left []datapath.FlowInfo
	if err := r.dp.DumpFlows(func(f *datapath.FlowInfo) bool { left = append(left, *f); return true }); err != nil {
		t.Fatal(err)
	}
	r.start(Config{}) // another agent
	told := r.faults()
	r.broken(func() {
		if again := append(r.w.Relearn(left), r.w.Adopt(left)...); len(again) != 0 {
			t.Errorf("undecided: %+v", again)
		}
		i := r.topo.MustInject(aToC)
		a := r.w.Explain(i.Port, i.View.Frame)
		told := a.Tree.Find(func(n *trace.Node) bool { return strings.Contains(n.Text, "internal: ") })
		if a.Result != sim.ResultDrop || a.Reason != drop.Internal || told == nil {
			t.Errorf("%+v", a)
		}
	})
	r.turn()
	if c := r.w.Counts(); c.Faults != 3 || len(*told) != 1 || r.flows() != 0 {
		t.Errorf("%d told, %d flows, %+v", len(*told), r.flows(), c)
	}
}
