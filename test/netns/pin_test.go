package netns

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
)

// A worker that keeps to a CPU and looks out for packets serves as others do, and nothing else of the agent keeps to a CPU.
func TestPinnedWorker(t *testing.T) {
	if goruntime.NumCPU() < 2 {
		t.Skip("there is one CPU")
	}
	l := up(t, examples.TwoSubnets)
	h := &l.Hosts[0]
	for _, key := range []string{"simulation_threads=1", "pin_simulation_threads=on", "polling=on"} {
		name, value, _ := strings.Cut(key, "=")
		confCommand(t, l, "set", "agent.midolman."+name, value, "--host", h.Name, "--wait=applied")
	}
	if n := pinned(t, h.PID); n != 0 {
		t.Errorf("%d threads are pinned before the agent was started with it", n)
	}
	kill(t, h)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	ping(t, space(t, l, "alice"), "10.0.2.10")
	ping(t, space(t, l, "mallory"), "10.0.2.10", "-i", "0.002")
	if n := pinned(t, h.PID); n != 1 {
		t.Errorf("%d threads are pinned, want one", n)
	}
}

// pinned is how many threads of a process may use one CPU only.
func pinned(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d threads, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
		if list, _, _ := strings.Cut(rest, "\n"); !strings.ContainsAny(list, ",-") {
			n++
		}
	}
	return n
}
