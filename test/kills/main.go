// Command kills ends the agent of a laboratory at random instants, over and over, while VMs talk: go run ./test/kills -n 1000 -seed 1. Established
// flows go on, both ways, at a steady rate, and new ones are opened meanwhile. It prints one JSON object per figure, and fails
// when an established packet was lost. It needs root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kills:", err)
		os.Exit(1)
	}
}

func run() error {
	n := flag.Int("n", 1000, "how often the agent ends")
	seed := flag.Uint64("seed", 1, "of what happens when")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "viaduct-kills-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binaries, err := build(ctx, dir, ".")
	if err != nil {
		return err
	}
	r, err := kills(ctx, options{name: fmt.Sprintf("kills%d", os.Getpid()), binaries: binaries, n: *n, seed: *seed, log: os.Stderr})
	if r != nil {
		for _, f := range r.figures() {
			_ = json.NewEncoder(os.Stdout).Encode(f)
		}
	}
	if err == nil {
		err = r.failed()
	}
	return err
}

// build makes two versions of viaduct: an agent is replaced by one with another name for itself.
func build(ctx context.Context, dir, root string) (binaries []string, err error) {
	for _, version := range []string{"a", "b"} {
		path := filepath.Join(dir, "viaduct-"+version)
		c := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X github.com/viaduct-net/viaduct/internal/ctl.version=kills-"+version, "-o", path, "./cmd/viaduct")
		c.Dir = root
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build viaduct: %w\n%s", err, out)
		}
		binaries = append(binaries, path)
	}
	return binaries, nil
}
