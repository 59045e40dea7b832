package netns

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

const bobsVM = "kind: vm\nname: bob\nport: bob\n"

// A port whose interface does not exist waits, visibly; it works as soon as the interface comes, and again
// after it has gone and come back with another index.
func TestInterfaceComesAndGoes(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t, bobsVM, bobsVM+"plugged: false\n")
	alice, bob := space(t, l, "alice"), vm(t, l, "bob")
	if p := port(t, l, "bob"); p.Status != debug.StatusWaiting || !strings.Contains(p.Reason, bob.Interface) {
		t.Errorf("port %+v, want that it waits for its interface", p)
	}
	for range 2 {
		if err := l.Plug(bob); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, l, "bob", debug.StatusUp)
		ping(t, alice, "10.0.2.10")
		if err := l.Unplug(bob); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, l, "bob", debug.StatusWaiting)
	}
}

// A second agent of the same datapath must refuse, say why, and not disturb the first, whatever its run directory.
func TestSecondAgent(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	h := &l.Hosts[0]
	for name, dir := range map[string]string{"same directory": h.RunDir, "other directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var out strings.Builder
			cmd := exec.CommandContext(ctx, viaduct, "agent", "--host", h.Name, "--etcd", l.Server.Etcd, "--run-dir", dir, "--name", filepath.Base(h.Pins))
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := h.Space.Start(cmd); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || ctx.Err() != nil {
				t.Errorf("the second agent did not refuse: %v", err)
			}
			if !strings.Contains(out.String(), "in use") {
				t.Errorf("it does not say that the datapath is in use:\n%s", out.String())
			}
			ping(t, space(t, l, "alice"), "10.0.2.10")
		})
	}
}

// A machine whose name another one has is refused, with where that is and what to do; the other goes on, and says so too. Given a name of its own again, it
// serves.
func TestNameOfAnotherMachine(t *testing.T) {
	l := up(t, examples.TwoHosts)
	h1, h2 := &l.Hosts[0], &l.Hosts[1]
	kill(t, h2)
	args := l.AgentArgs
	l.AgentArgs = append(slices.Clone(args), "--host", h1.Name)
	err := l.StartAgent(t.Context(), h2)
	if err == nil {
		t.Fatal("a second machine is host h1")
	}
	for _, want := range []string{" at 169.254.", "is alive under it", "viaduct agent --host NAME"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if s := troubled(t, debug.NewClient(h1.Socket()), "host_name_taken"); !strings.Contains(s, " at 169.254.") {
		t.Errorf("the first says %q", s)
	}
	l.AgentArgs = args
	if err := l.StartAgent(t.Context(), h2); err != nil {
		t.Fatal(err)
	}
	ping(t, space(t, l, "alice"), "10.0.1.11")
}

// Somebody else's program on a VM's interface: the port is not used, and says why.
func TestForeignProgram(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t, bobsVM, bobsVM+"plugged: false\n")
	h, bob := &l.Hosts[0], vm(t, l, "bob")
	kill(t, h) // so that it is not faster than the foreigner
	if err := l.Plug(bob); err != nil {
		t.Fatal(err)
	}
	attachForeign(t, h.Space, bob.Interface)
	if _, err := l.LaunchAgent(h); err != nil { // its port will not be up
		t.Fatal(err)
	}
	eventually(t, "the port says what is in its way", func(ctx context.Context) error {
		p, err := hostPort(ctx, h, "bob")
		if err == nil && (p == nil || p.Status == debug.StatusUp || !strings.Contains(p.Reason, "program")) {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	ping(t, space(t, l, "alice"), "10.0.1.66") // the other ports are served
}

// attachForeign attaches a program that lets everything pass to an interface's ingress.
func attachForeign(t *testing.T, s ns.Space, ifname string) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}}) // TCX_NEXT
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	err = s.Do(func() error {
		index, err := ifindex(ifname)
		if err != nil {
			return err
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
