package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// TestMain lets the test binary be the command, too, for the processes that it starts.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" || os.Getenv("VIADUCT_SCALE_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestFigures is the whole measurement, of a small cloud.
func TestFigures(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this makes a network namespace and loads BPF programs: it needs root")
	}
	binary := os.Getenv("VIADUCT_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "viaduct")
		if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/viaduct").CombinedOutput(); err != nil {
			t.Fatalf("build viaduct: %v\n%s", err, out)
		}
	}
	cmd := exec.Command(os.Args[0], "-agents", "20", "-ports", "500", "-networks", "5", "-rounds", "3", "-hosted", "10", "-settle", "0s", "-pause", "0s", "-starts", "2", "-binary", binary)
	cmd.Env = append(os.Environ(), "VIADUCT_SCALE_COMMAND=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	got := map[string]float64{}
	for line := range strings.Lines(out.String()) {
		var f Figure
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got[f.Figure] = f.Value
	}
	for _, name := range []string{"commit_p50_ms", "commit_p99_ms", "agent_ready_ms", "agent_rss_mb"} {
		if got[name] <= 0 {
			t.Errorf("%s: %v in\n%s", name, got[name], &out)
		}
	}
	if n := got["commit_policy_hosts"]; n != 20 {
		t.Errorf("what all routers share concerns %v hosts", n)
	}
}

// TestPlan: clouds of any shape are what they are said to be, and valid.
func TestPlan(t *testing.T) {
	for _, s := range []shape{
		{hosts: 1, ports: 1, networks: 1, spread: 1, hosted: 1},
		{hosts: 20, ports: 500, networks: 5, spread: 4, hosted: 10},
		{hosts: 7, ports: 801, networks: 3, spread: 3, hosted: 50},
	} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			if err := s.check(); err != nil {
				t.Fatal(err)
			}
			c, g := s.plan(), model.NewGraph()
			for _, part := range c.objects() {
				var ops []store.Op
				for _, o := range part {
					ops = append(ops, store.Op{Verb: store.Create, Object: o})
				}
				staged, err := g.Stage(ops...)
				if err != nil {
					t.Fatal(err)
				}
				staged.Commit(1)
			}
			n := 0
			for h, vms := range c.byHost {
				if len(vms) == 0 {
					t.Errorf("%s has no VM", s.hostName(h))
				}
				n += len(vms)
			}
			if n != s.ports+s.hosted || len(c.byHost[s.hosts]) != s.hosted {
				t.Errorf("%d VMs, of these %d of the last host", n, len(c.byHost[s.hosts]))
			}
			for _, sort := range sorts {
				for i := range 3 {
					staged, err := g.Stage(sort.make(c, i).ops...)
					if err != nil {
						t.Fatalf("%s %d: %v", sort.name, i, err)
					}
					staged.Commit(2)
				}
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	vs := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0.5: 3, 0.99: 5, 0.2: 1} {
		if got := quantile(vs, q); got != want {
			t.Errorf("%v of %v: %v, want %v", q, vs, got, want)
		}
	}
}
