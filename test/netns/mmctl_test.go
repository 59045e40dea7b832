package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
)

// mmctl runs the program under the name mm-ctl, as libvirt does, and returns its exit code and what it said.
func mmctl(t *testing.T, h *lab.Host, args ...string) (int, string) {
	t.Helper()
	link := filepath.Join(t.TempDir(), "mm-ctl")
	if err := os.Symlink(viaduct, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link, args...)
	cmd.Env = append(os.Environ(), "VIADUCT_SOCKET="+h.Socket())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// A hypervisor binds and unbinds the port of its VM by the host's agent.
func TestMMCtl(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t, "kind: host\nname: h1\n", "kind: host\nname: h1\n---\nkind: host\nname: h2\n")
	alice := space(t, l, "alice")
	h1, err := l.Host("h1")
	if err != nil {
		t.Fatal(err)
	}
	h2, err := l.Host("h2")
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	agent := debug.NewClient(h1.Socket())
	ports := func(ctx context.Context) map[string]debug.Port {
		ps, err := agent.Ports(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]debug.Port{}
		for _, p := range ps {
			m[p.Name] = p
		}
		return m
	}
	if id = ports(t.Context())["alice"].ID; id == "" {
		t.Fatal("alice's port is not there")
	}
	want := func(h *lab.Host, code int, said string, args ...string) {
		t.Helper()
		if got, out := mmctl(t, h, args...); got != code || !strings.Contains(out, said) {
			t.Errorf("mm-ctl %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out)
		}
	}
	ping(t, alice, "10.0.2.10")

	want(h2, 0, "was not bound on this host", "--unbind-port", id)
	// Who binds last has the port, as where a VM is taken in before it is given away: the other host lets go.
	want(h2, 0, "", "--bind-port", id, "tap-alice")
	eventually(t, "port let go", func(ctx context.Context) error {
		if p, ok := ports(ctx)["alice"]; ok {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	want(h1, 0, "was not bound on this host", "--unbind-port", id)
	want(h1, 0, "", "--bind-port", id, "tap-alice")
	eventually(t, "port back", func(ctx context.Context) error {
		if p := ports(ctx)["alice"]; p.Status != debug.StatusUp {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	ping(t, alice, "10.0.2.10")
	want(h1, 0, "", "--unbind-port", id)
	want(h1, 0, "was not bound on this host", "--unbind-port", id)
	eventually(t, "port unbound", func(ctx context.Context) error {
		if _, ok := ports(ctx)["alice"]; ok {
			return errors.New("it is still there")
		}
		return nil
	})
	if out, err := command(alice, "ping", "-n", "-c", "1", "-W", "1", "10.0.2.10"); err == nil {
		t.Errorf("an unbound port forwards:\n%s", out)
	}
	want(h1, 0, "", "--bind-port", strings.ToUpper(id), "tap-alice")
	want(h1, 0, "", "--bind-port", id, "tap-alice")
	eventually(t, "port bound", func(ctx context.Context) error {
		if p := ports(ctx)["alice"]; p.Status != debug.StatusUp {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	ping(t, alice, "10.0.2.10")

	want(h1, 3, "not found", "--bind-port", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "tap-alice")
	want(h1, 1, "is no UUID", "--bind-port", "alice", "tap-alice")
	kill(t, h1)
	want(h1, 255, "is it running?", "--bind-port", id, "tap-alice")
	if err := l.StartAgent(t.Context(), h1); err != nil {
		t.Fatal(err)
	}
}
