package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

var attackLines = []attackLine{
	{Figure: "attack", Net: "viaduct", Attack: "idle", Flows: 400, P99: 500, TCPRatio: 1},
	{Figure: "attack", Net: "viaduct", Attack: "ports", Rogues: 1, Flows: 400, P99: 900, TCPRatio: 0.97, SendersP99: 800, SendersTCPRatio: 1.01},
	{Figure: "attack", Net: "viaduct", Attack: "arp", Rogues: 8, Flows: 400, Lost: 4, P99: 1200, TCPRatio: 0.99, SendersP99: 700, SendersTCPRatio: 0.98},
	{Figure: "attack", Net: "ovn", Attack: "ports", Rogues: 1, Flows: 400, Lost: 400, TCPRatio: 0},
}

func TestWorst(t *testing.T) {
	want := map[string]float64{"attack_loss": 4, "attack_p99_us": 1200, "attack_p99_ratio": 2.4, "attack_tcp_ratio": 0.97, "attack_senders_p99_us": 800, "attack_senders_tcp_ratio": 0.98}
	for _, f := range worst("viaduct", attackLines[:3]) {
		if want[f.Figure] != f.Value {
			t.Errorf("%s: %v, want %v", f.Figure, f.Value, want[f.Figure])
		}
	}
	disturbed := append([]attackLine{{Net: "viaduct", Attack: "idle", Disturbed: true}}, attackLines[1:3]...)
	for i, f := range worst("viaduct", disturbed) {
		if !f.Disturbed || worst("viaduct", attackLines[:3])[i].Disturbed {
			t.Errorf("%s: disturbed %v, want that said of what was, and of nothing else", f.Figure, f.Disturbed)
		}
	}
	if f := worst("ovn", attackLines[3:])[3]; f.Figure != "ovn_attack_tcp_ratio" || f.Value != 0 {
		t.Errorf("%+v", f)
	}
}

func TestDrawAttacks(t *testing.T) {
	in := `{"figure":"attack_loss","value":1}
{"figure":"attack","net":"viaduct","attack":"ports","rogues":1,"flows":400,"p50_us":7,"p99_us":900,"p999_us":1000,"tcp_ratio":0.5,"senders_p99_us":800,"senders_tcp_ratio":0.9,"switch_cpus":0.25,"rss_mib":100,"disturbed":true}
{"figure":"attack","net":"ovn","attack":"ports","rogues":1,"flows":400,"lost":100}
`
	var out strings.Builder
	plot := filepath.Join(t.TempDir(), "plot.svg")
	if err := drawAttacks(strings.NewReader(in), &out, plot); err != nil {
		t.Fatal(err)
	}
	if want := "| ports | 0 | 7, 900, 1000 (disturbed) | 800 | 0.50 | 0.90 | 0.25 | 100 | 25.0 % | 0, 0, 0 | 0 | 0.00 | 0.00 | 0.00 | 0 |\n"; !strings.Contains(out.String(), want) {
		t.Errorf("%s\nwant a row %s", out.String(), want)
	}
	b, err := os.ReadFile(plot)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(b)))
	for err == nil {
		_, err = d.Token()
	}
	if !errors.Is(err, io.EOF) || !strings.Contains(string(b), "25.0 % lost") {
		t.Errorf("%v\n%s", err, b)
	}
	if err := drawAttacks(strings.NewReader("{}\n"), io.Discard, plot); err == nil {
		t.Error("nothing was drawn, and nobody was told")
	}
}

func TestStreamAt(t *testing.T) {
	marks := []traffic.TCPResult{{At: 1000, Bytes: 0}, {At: 2000, Bytes: 100}, {At: 6000, Bytes: 300}}
	for at0, want := range map[int64]float64{0: 0, 1000: 0, 1500: 50, 2000: 100, 4000: 200, 6000: 300, 9000: 300} {
		if got := at(marks, at0); got != want {
			t.Errorf("at %d: %v bytes, want %v", at0, got, want)
		}
	}
}
