package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

var shareLine = regexp.MustCompile(`(?m)^BenchmarkClassShare\S*\s.*?([\d.]+) VM_%`)

// shares: what VMs get of the agent while another class, or both others, want more than they get, too: in the combination of saturated
// classes in which it is farthest from half.
func shares(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^BenchmarkClassShare$", "-benchtime=1x", "./internal/path/datapath/ebpf")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	worst := 50.0
	lines := shareLine.FindAllSubmatch(out, -1)
	for _, m := range lines {
		share, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return err
		}
		if math.Abs(share-50) >= math.Abs(worst-50) {
			worst = share
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("no share in %q", out)
	}
	b.emit(figure("class_share", worst, "%"))
	return nil
}
