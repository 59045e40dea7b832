package demo

import (
	"bytes"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

func TestFollow(t *testing.T) {
	tree := &trace.Node{What: "packet"}
	tree.Add("datapath", "datapath port 1", "a miss; one token taken")
	sim := tree.Add("sim", "port alice", "ingress")
	sim.Add("sim", "bridge blue", "MAC table finds x")
	tree.Add("datapath", "execute", "output")
	a, b, c := mark{"datapath", "datapath port", "token"}, mark{"sim", "bridge blue", ""}, mark{"datapath", "execute", ""}
	for _, k := range []struct {
		name  string
		marks []mark
		left  int
	}{
		{"all", []mark{a, b, c}, 0},
		{"none wanted", nil, 0},
		{"other order", []mark{b, a, c}, 2},
		{"other stage", []mark{{"prep", "execute", ""}}, 1},
		{"other text", []mark{{"sim", "bridge blue", "ARP"}}, 1},
		{"one node is one mark", []mark{c, c}, 1},
	} {
		if left := follow(tree, k.marks); len(left) != k.left {
			t.Errorf("%s: %v are left, want %d", k.name, left, k.left)
		}
	}
}

func TestJudge(t *testing.T) {
	good := traffic.ProbeResult{Sent: 10}
	flood := traffic.FloodResult{Sent: 1}
	if err := judge([]traffic.ProbeResult{good, good, good}, flood); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]traffic.ProbeResult{"lost": {Sent: 10, Lost: 1}, "silent": {}} {
		if judge([]traffic.ProbeResult{good, bad, good}, flood) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if judge([]traffic.ProbeResult{good, good, good}, traffic.FloodResult{}) == nil {
		t.Error("without a flood: no error")
	}
}

func TestPlot(t *testing.T) {
	for _, c := range []struct {
		us  int64
		row int
	}{{0, 0}, {50, 0}, {107, 0}, {108, 1}, {499, 2}, {501, 3}, {5001, 6}, {1e9, plotRows - 1}} {
		if got := rowOf(c.us); got != c.row {
			t.Errorf("%d us is in row %d, want %d", c.us, got, c.row)
		}
	}
	var b bytes.Buffer
	p := newPlot(&b, 40, 100)
	p.add("before", traffic.ProbeResult{Sent: 100, P50: 60, P99: 600})
	p.add("during", traffic.ProbeResult{Sent: 100, P50: 60, P99: 6000, Lost: 1})
	rows := strings.Split(b.String(), "\n")
	last := rows[plotRows+2 : 2*(plotRows+2)] // the second drawing
	if got := last[plotRows-1]; !strings.HasSuffix(got, "|oo") {
		t.Errorf("bottom row %q, want both p50", got)
	}
	if got := last[plotRows-1-3]; !strings.HasSuffix(got, "|*:") {
		t.Errorf("fourth row %q, want the first p99 and the way to the second", got)
	}
	if got := last[0]; !strings.Contains(got, "| X") {
		t.Errorf("top row %q, want the loss", got)
	}
	if got := last[plotRows+1]; !strings.Contains(got, "1 of 200 flows lost") {
		t.Errorf("last line %q", got)
	}
	b.Reset()
	p = newPlot(&b, 0, 100)
	for range 4 {
		p.add("before", traffic.ProbeResult{Sent: 100, P50: 60, P99: 600})
	}
	if got := b.String(); strings.Count(got, "\n") != 2 || strings.Contains(got, "\x1b") {
		t.Errorf("lines %q, want two plain ones", got)
	}
}
