package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// simBenchmarks are the benchmarks of one simulation through bridge, router and bridge, by figure: plain, and of a new connection through
// security groups of a hundred rules and a router that masquerades.
var simBenchmarks = []struct{ figure, benchmark string }{
	{"sim", "^BenchmarkSimulateBridgeRouterBridge$"},
	{"sim_stateful", "^BenchmarkSimulateStateful$"},
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+([\d.]+) ns/op.*?\s(\d+) allocs/op`)

// simulation runs the simulator's own benchmarks and takes the medians of their runs.
func simulation(ctx context.Context, b *bench) error {
	for _, s := range simBenchmarks {
		if err := simulate(ctx, b, s.figure, s.benchmark); err != nil {
			return err
		}
	}
	return nil
}

func simulate(ctx context.Context, b *bench, name, benchmark string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench="+benchmark, "-benchmem", "-count="+strconv.Itoa(b.rounds), "./internal/path/sim/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	ns, allocs, err := parseBenchmark(out)
	if err != nil {
		return err
	}
	b.emit(figure(name+"_ns", median(ns), "ns"), figure(name+"_allocs", median(allocs), "allocations"))
	return nil
}

func parseBenchmark(out []byte) (ns, allocs []float64, err error) {
	for _, m := range benchLine.FindAllSubmatch(out, -1) {
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, nil, err
		}
		a, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return nil, nil, err
		}
		ns, allocs = append(ns, n), append(allocs, a)
	}
	if len(ns) == 0 {
		return nil, nil, fmt.Errorf("no benchmark in: %s", out)
	}
	return ns, allocs, nil
}
