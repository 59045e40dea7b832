package netns

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/labtest"
)

// `up` that fails when everything but the agent is there takes all of it away again.
func TestHalfFailedUp(t *testing.T) {
	t.Parallel()
	name := labName()
	labtest.Restored(t, name)
	_, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: viaduct, AgentArgs: []string{"--no-such-flag"}}, parse(t, examples.TwoSubnets))
	if err == nil || !strings.Contains(err.Error(), "agent of host h1: ended") || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("got %v, want what the agent said", err)
	}
}

// Another process, that knows the name alone, takes a laboratory down while it works.
func TestDownByCommand(t *testing.T) {
	t.Parallel()
	name := labName()
	labtest.Restored(t, name)
	l, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: viaduct}, parse(t, examples.TwoSubnets))
	if err != nil {
		t.Fatal(err)
	}
	alice := space(t, l, "alice")
	ping(t, alice, "10.0.2.10")
	// What a user started in a VM ends with it.
	if _, err := tools().StartReady(t.Context(), alice, "echo"); err != nil {
		t.Fatal(err)
	}
	if out, err := command("", viaduct, "lab", "down", "--name", l.Name); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if pids, err := alice.Processes(); err != nil || len(pids) != 0 {
		t.Errorf("processes %v, %v", pids, err)
	}
}
