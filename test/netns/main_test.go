// Package netns tests the whole of Viaduct, the server and the agent as processes, on the real
// kernel in network namespaces. Those tests that need the machine for themselves, because they measure, flood, or count each frame of a fast
// flow, come first, one after the other; then come all others, several at once (-parallel), each in laboratories of its own.
package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/labtest"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
)

// viaduct is the program, built for these tests, or what VIADUCT_BINARY names.
var viaduct = os.Getenv("VIADUCT_BINARY")

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the namespace tests make network namespaces and load BPF programs: they need root")
		os.Exit(1)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if viaduct == "" {
		dir, err := os.MkdirTemp("", "viaduct-netns-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		viaduct = filepath.Join(dir, "viaduct")
		if out, err := exec.Command("go", "build", "-o", viaduct, "../../cmd/viaduct").CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build viaduct: %w\n%s", err, out)
		}
	}
	return m.Run(), nil
}

// driver has agents use the one that VIADUCT_DRIVER names: test-vm runs some of these tests with Open vSwitch's module.
func driver() []string {
	if driver := os.Getenv("VIADUCT_DRIVER"); driver != "" {
		return []string{"agent.datapath.driver=" + driver}
	}
	return nil
}

// labs counts the laboratories of this process.
var labs atomic.Int32

// labName is another one each time, and none is the beginning of another.
func labName() string { return fmt.Sprintf("netns%d-%03d", os.Getpid(), labs.Add(1)) }

func parse(t *testing.T, text string) *document.Set {
	t.Helper()
	set, err := document.Parse(strings.NewReader(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// twoSubnets makes a laboratory of examples.TwoSubnets, with replacements in its text.
func twoSubnets(t *testing.T, replace ...string) *lab.Lab {
	t.Helper()
	return up(t, examples.TwoSubnets, replace...)
}

// up makes a laboratory of an example, with replacements in its text.
func up(t *testing.T, text string, replace ...string) *lab.Lab {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("the example has no %q", replace[i])
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	return laboratory(t, text)
}

// laboratory makes one of a text. Afterwards the machine must be as it was.
func laboratory(t *testing.T, text string) *lab.Lab {
	t.Helper()
	name := labName()
	labtest.Restored(t, name)
	l, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: viaduct, Conf: driver()}, parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, l)
		} else {
			balanced(t, l)
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func showLogs(t *testing.T, l *lab.Lab) {
	for _, h := range l.Hosts {
		b, err := os.ReadFile(h.Log)
		t.Logf("log of the agent of host %s (%v):\n%s", h.Name, err, b)
		c := debug.NewClient(h.Socket())
		s, err := c.Stats(context.Background()) // the test's own is over
		t.Logf("what became of its packets (%v): %+v", err, s)
		if ports, err := c.Ports(context.Background()); err == nil {
			for _, p := range ports {
				t.Logf("port %s: admitted %d, executed %d, consumed %d, waiting %d, drops %v", p.Name, p.Admitted, p.Executed, p.Consumed, p.Waiting, p.Drops)
			}
		}
	}
}

// balanced checks what must be true of an agent at any time that it is at rest: every packet ended in one way, every token is
// accounted for.
func balanced(t *testing.T, l *lab.Lab) {
	t.Helper()
	for i := range l.Hosts {
		agent := debug.NewClient(l.Hosts[i].Socket())
		eventually(t, "packets and tokens add up", func(ctx context.Context) error {
			s, err := agent.Stats(ctx)
			if err != nil {
				return err
			}
			ended := s.Executed + s.Consumed + uint64(s.Waiting)
			for _, n := range s.Dropped {
				ended += n
			}
			if ended != s.In || s.Taken != s.Returned+uint64(s.InFlight) {
				return fmt.Errorf("in %d, ended %d; tokens taken %d, returned %d, in flight %d", s.In, ended, s.Taken, s.Returned, s.InFlight)
			}
			return nil
		})
	}
}

// eventually waits, a minute at most, until a condition holds that another process brings about.
func eventually(t *testing.T, what string, holds func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var why error // the last reason that is not the end of our patience
	for {
		err := holds(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			why = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, why)
		case <-tick.C:
		}
	}
}

func space(t *testing.T, l *lab.Lab, name string) ns.Space {
	t.Helper()
	s, err := l.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func vm(t *testing.T, l *lab.Lab, name string) *lab.VM {
	t.Helper()
	v, err := l.VM(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tools() tool.Runner { return tool.Runner{Command: []string{viaduct, "lab", "tool"}} }

// command runs a command in a namespace and returns what it printed.
func command(s ns.Space, args ...string) (string, error) {
	var out strings.Builder
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), err
}

// ping wants an answer to each of the first three echo requests. It says until when to wait (-w): else, once one has been answered, ping
// waits for the last ones for twice as long as the slowest took, or for the interval, whatever -W is; on a busy machine they take longer. With -w it sends
// more when answers are late, so that their number says nothing.
func ping(t *testing.T, s ns.Space, address string, more ...string) {
	t.Helper()
	args := append([]string{"ping", "-n", "-c", "3", "-i", "0.1", "-w", "20"}, more...)
	out, err := command(s, append(args, address)...)
	for i := 1; i <= 3; i++ {
		if !strings.Contains(out, fmt.Sprintf(": icmp_seq=%d ttl=", i)) {
			err = errors.Join(err, fmt.Errorf("echo request %d is not answered", i))
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// port reads a port's state from the agent.
func port(t *testing.T, l *lab.Lab, name string) debug.Port {
	t.Helper()
	ports, err := debug.NewClient(l.Hosts[0].Socket()).Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("the agent has no port %s", name)
	return debug.Port{}
}

// awaitStatus waits until the agent reports a port's status.
func awaitStatus(t *testing.T, l *lab.Lab, name, status string) {
	t.Helper()
	agent := debug.NewClient(l.Hosts[0].Socket())
	eventually(t, "status of port "+name, func(ctx context.Context) error {
		ports, err := agent.Ports(ctx)
		if err != nil {
			return err
		}
		for _, p := range ports {
			if p.Name == name && p.Status == status {
				return nil
			}
		}
		return fmt.Errorf("want %s: %+v", status, ports)
	})
}
