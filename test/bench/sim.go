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

// simBenchmark is the benchmark of one simulation through bridge, router and bridge.
const simBenchmark = "^BenchmarkSimulateBridgeRouterBridge$"

var benchLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+([\d.]+) ns/op.*?\s(\d+) allocs/op`)

// simulation runs the simulator's own benchmark and takes the median of its runs.
func simulation(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench="+simBenchmark, "-benchmem", "-count="+strconv.Itoa(b.rounds), "./internal/path/sim/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	ns, allocs, err := parseBenchmark(out)
	if err != nil {
		return err
	}
	b.emit(figure("sim_ns", median(ns), "ns"), figure("sim_allocs", median(allocs), "allocations"))
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
		return nil, nil, fmt.Errorf("no benchmark %s in: %s", simBenchmark, out)
	}
	return ns, allocs, nil
}
