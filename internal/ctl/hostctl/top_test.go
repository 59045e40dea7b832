package hostctl

import (
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/trace"
)

func TestCompare(t *testing.T) {
	before := []debug.Port{
		{ID: "1", Name: "a", Interface: "t1", Work: 100, RxPackets: 1000, Admitted: 10, Drops: map[string]uint64{"no_credit": 5}, Setups: []uint64{1, 1}},
		{ID: "2", Name: "b", Interface: "t2", Work: 500, RxPackets: 9000, Admitted: 900},
	}
	after := []debug.Port{
		{ID: "1", Name: "a", Interface: "t1", Work: 400, RxPackets: 1200, Admitted: 30, Drops: map[string]uint64{"no_credit": 105, "no_route": 6, "loop": 2}, Setups: []uint64{1, 1, 0, 8, 2}},
		{ID: "2", Name: "b", Interface: "t2", Work: 100, RxPackets: 50, Admitted: 4}, // made anew
		{ID: "3", Name: "c", Interface: "t3"},
	}
	got := compare(before, after, 2*time.Second)
	a, b, c := got[0], got[1], got[2]
	if a.Port != "a" || a.Share != 0.75 || a.Received != 100 || a.NewFlows != 10 || a.Refused != 50 || a.Dropped != 4 || a.Reason != "no_route" {
		t.Errorf("a: %+v", a)
	}
	if a.P50 != 8*time.Microsecond || a.P99 != 16*time.Microsecond {
		t.Errorf("a: p50 %s, p99 %s", a.P50, a.P99)
	}
	if b.Port != "b" || b.Share != 0.25 || b.Received != 25 || b.P99 != 0 {
		t.Errorf("b: %+v", b)
	}
	if c.Port != "c" || c.Share != 0 || c.Received != 0 {
		t.Errorf("c: %+v", c)
	}
}

func TestOutcome(t *testing.T) {
	for want, add := range map[string]func(*trace.Node){
		"forwarded ":       func(n *trace.Node) { n.Add("sim", "result", "forward: x"); n.Add("datapath", "execute", "output 2") },
		"dropped no_route": func(n *trace.Node) { n.Add("sim", "result", "drop"); n.Add("sim", "drop", "no_route: no route") },
		"consumed ":        func(n *trace.Node) { n.Add("sim", "result", "consumed") },
		"waits ":           func(n *trace.Node) { n.Add("prep", "park", "until the neighbour answers") },
	} {
		root := &trace.Node{What: "packet"}
		root.Add("", "generated packet", "something").Add("sim", "drop", "loop: of another packet")
		add(root)
		what, reason := outcome(root)
		if got := what + " " + reason; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestSumUp: what the lines say adds up to what entered, also when packets wait or are on their way.
func TestSumUp(t *testing.T) {
	before := debug.Port{RxPackets: 100, Admitted: 20, Executed: 10, Consumed: 5, Waiting: 5, Drops: map[string]uint64{"no_credit": 7}}
	after := debug.Port{RxPackets: 1100, Admitted: 320, Executed: 210, Consumed: 25, Waiting: 45, InFlight: 10,
		Drops: map[string]uint64{"no_credit": 107, "loop": 30}}
	s := sumUp(before, after, time.Second, nil, 0)
	got := map[string]int64{}
	for _, l := range s.Lines {
		got[l.Stage+" "+l.Outcome+" "+l.Reason] = l.Packets
	}
	want := map[string]int64{
		"datapath dropped no_credit": 100, "sim dropped loop": 30, "worker forwarded ": 200, "sim consumed ": 20, "prep waits ": 40,
		"upcall in flight ": 10, "datapath forwarded ": 600,
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%s: %d, want %d", k, got[k], n)
		}
	}
	if len(got) != len(want) || s.Off != 0 || s.Entered != 1000 {
		t.Errorf("%+v", s)
	}
}
