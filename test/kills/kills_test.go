package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab/labtest"
)

// The short form of what main does a thousand times.
func TestKills(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	name := fmt.Sprintf("kills%d", os.Getpid())
	labtest.Restored(t, name)
	binaries, err := build(t.Context(), t.TempDir(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	r, err := kills(t.Context(), options{name: name, binaries: binaries, n: 10, seed: 1, log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.failed(); err != nil {
		t.Error(err)
	}
	t.Log(r.figures())
}
