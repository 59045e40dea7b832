package netns

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

const (
	vmBurst     = "agent.datapath.vm_incoming_burst_capacity"
	globalBurst = "agent.datapath.global_incoming_burst_capacity"
)

// configured sets values and waits until every agent has applied them.
func configured(t *testing.T, l *lab.Lab, values ...string) {
	t.Helper()
	revision, err := l.Configure(t.Context(), values...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "applied", func(ctx context.Context) error {
		hs, err := c.ConfHosts(ctx)
		for _, h := range hs.Hosts {
			if h.Agent == nil || h.Agent.Revision < revision {
				return fmt.Errorf("%s: %+v, want revision %d", h.Name, h.Agent, revision)
			}
		}
		return err
	})
}

// The buckets change under a flood, with tokens in flight, up and down and off: the kernel has admitted what the agent has
// taken and given back, no packet got lost between them, and in the end each bucket holds what it should.
func TestBucketsChangeUnderLoad(t *testing.T) {
	l := twoSubnets(t)
	const ports = 4
	flood, err := tools().Start(t.Context(), space(t, l, "mallory"), "flood", "--target=10.0.2.66", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	agent := debug.NewClient(l.Hosts[0].Socket())
	for _, n := range []int64{4, 512, 0, 1, 128, 16, 300, 32} {
		configured(t, l, fmt.Sprintf("%s=%d", vmBurst, n), fmt.Sprintf("%s=%d", globalBurst, 64+n%7))
		s, err := agent.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := max(64+n%7, ports*n); s.Tokens != want {
			t.Errorf("burst %d: %d tokens, want %d", n, s.Tokens, want)
		}
		at := s.In
		eventually(t, "the flood goes on", func(ctx context.Context) error {
			s, err := agent.Stats(ctx)
			if err == nil && s.In < at+1000 {
				err = fmt.Errorf("%d misses since", s.In-at)
			}
			return err
		})
	}
	var sent traffic.FloodResult
	if err := flood.Stop(&sent); err != nil {
		t.Fatal(err)
	}
	if sent.Sent == 0 {
		t.Fatal("there was no flood")
	}
	balanced(t, l)
	eventually(t, "all tokens are back", func(ctx context.Context) error {
		s, err := agent.Stats(ctx)
		if err != nil {
			return err
		}
		ps, err := agent.Ports(ctx)
		if err != nil {
			return err
		}
		var admitted uint64
		for _, p := range ps {
			admitted += p.Admitted
			if p.Credit != 32 {
				return fmt.Errorf("port %s holds %d of 32", p.Name, p.Credit)
			}
			if n := p.Drops["ring_full"]; n > 0 {
				t.Errorf("port %s: %d misses found no room on the ring", p.Name, n)
			}
		}
		if len(ps) != ports || s.InFlight != 0 || s.Tokens != ports*32 || s.RootCredit != 0 || admitted != s.Taken {
			return fmt.Errorf("%d ports, the kernel admitted %d misses: %+v", len(ps), admitted, s)
		}
		return nil
	})
	ping(t, space(t, l, "alice"), "10.0.2.10")
}

// Protection off, while it runs: the root's tokens are for all, and on again each port has its own.
func TestProtectionOff(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	agent := debug.NewClient(l.Hosts[0].Socket())
	for _, c := range []struct {
		vm, global   int
		credit, root int64
	}{{0, 96, 0, 96}, {24, 100, 24, 4}} {
		configured(t, l, vmBurst+"="+strconv.Itoa(c.vm), globalBurst+"="+strconv.Itoa(c.global), "agent.datapath.tunnel_incoming_burst_capacity=0", "agent.datapath.vtep_incoming_burst_capacity=0")
		eventually(t, "tokens are where they belong", func(ctx context.Context) error {
			s, err := agent.Stats(ctx)
			if err != nil {
				return err
			}
			ps, err := agent.Ports(ctx)
			for _, p := range ps {
				if p.Credit != c.credit || s.RootCredit != c.root {
					return fmt.Errorf("port %s holds %d, the root %d, want %d and %d", p.Name, p.Credit, s.RootCredit, c.credit, c.root)
				}
			}
			return err
		})
		ping(t, space(t, l, "alice"), "10.0.2.10")
	}
}

// confCommand runs `viaduct conf` against the laboratory's server.
func confCommand(t *testing.T, l *lab.Lab, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), viaduct, append([]string{"--server", "unix://" + l.Server.Socket, "conf"}, args...)...).Output()
	if err != nil {
		t.Fatalf("viaduct conf %v: %v", args, err)
	}
	return string(out)
}

// What is set for one host concerns that host alone; what needs a restart waits for one, and says so.
func TestConfiguredByHost(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	credit := func(h *lab.Host, want int64) {
		t.Helper()
		eventually(t, "credit", func(ctx context.Context) error {
			ps, err := debug.NewClient(h.Socket()).Ports(ctx)
			for _, p := range ps {
				if p.Name != "tunnel" && p.Credit != want {
					return fmt.Errorf("port %s of host %s holds %d, want %d", p.Name, h.Name, p.Credit, want)
				}
			}
			return err
		})
	}
	one, other := &l.Hosts[0], &l.Hosts[1]
	confCommand(t, l, "set", vmBurst, "5", "--host", one.Name, "--wait=applied")
	credit(one, 5)
	credit(other, 32)
	confCommand(t, l, "template", "assign", "compute", other.Name, "--wait=applied")
	credit(one, 5)
	credit(other, 16)

	const threads = "agent.midolman.simulation_threads"
	workers := func() int {
		s, err := debug.NewClient(one.Socket()).Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Workers
	}
	had := workers()
	confCommand(t, l, "set", threads, strconv.Itoa(had+1), "--host", one.Name, "--wait=applied")
	if out := confCommand(t, l, "hosts"); !strings.Contains(out, threads) || workers() != had {
		t.Errorf("%d workers, and:\n%s", workers(), out)
	}
	kill(t, one)
	if err := l.StartAgent(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is pending", func(context.Context) error {
		if out := confCommand(t, l, "hosts"); strings.Contains(out, threads) || workers() != had+1 {
			return fmt.Errorf("%d workers, and:\n%s", workers(), out)
		}
		return nil
	})
	credit(one, 5)
	ping(t, space(t, l, "alice"), "10.0.1.11")
}

// A change is waited for until every agent that runs has applied it: what comes next goes by it. One that is stopped lags, and is named.
func TestWaitUntilApplied(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), viaduct, append([]string{"--server", "unix://" + l.Server.Socket}, args...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("viaduct %v: %v, want exit code %d\n%s", args, err, want, out)
		}
		return string(out)
	}
	doc := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(doc, []byte("kind: bridge\nname: new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, "apply", "-f", doc, "--wait=applied", "--timeout=30s")
	other := &l.Hosts[1]
	if err := syscall.Kill(other.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(other.PID, syscall.SIGCONT) })
	if out := run(7, "delete", "-f", doc, "--wait=applied", "--timeout=2s"); !strings.Contains(out, "not applied yet by "+other.Name+"\n") || !strings.Contains(out, "bridge/new deleted") {
		t.Errorf("one is stopped: %s", out)
	}
	if err := syscall.Kill(other.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	run(0, "apply", "-f", doc, "--wait=applied", "--timeout=30s")
}
