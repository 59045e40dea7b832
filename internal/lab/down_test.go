package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/labtest"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

func testName(t *testing.T) string { return fmt.Sprintf("labtest%d", os.Getpid()) }

func TestFailedUpLeavesNothing(t *testing.T) {
	labtest.NeedRoot(t)
	labtest.Restored(t, testName(t))
	_, err := Up(t.Context(), Options{Name: testName(t), Binary: "/bin/false", Timeout: 20 * time.Second}, parse(t, examples.TwoSubnets))
	if err == nil || !strings.Contains(err.Error(), "server: ended") {
		t.Errorf("got %v, want that the server ended", err)
	}
}

// `up` dies after it has made half of it: what it knew is lost, but for the manifest.
func TestDownAfterCrash(t *testing.T) {
	labtest.NeedRoot(t)
	labtest.Restored(t, testName(t))
	l, err := plan(t.Context(), Root, testName(t), "/bin/sleep", parse(t, examples.TwoSubnets))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil { // does nothing unless the test failed half way
			t.Error(err)
		}
	})
	if err := l.claim(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same laboratory twice: %v", err)
	}
	vm, host := &l.VMs[0], &l.Hosts[0]
	for _, s := range []ns.Space{vm.Space, host.Space} {
		if err := s.Create(); err != nil {
			t.Fatal(err)
		}
	}
	if err := plug.Veth(host.Space, vm.Interface, vm.Space, vm.NIC); err != nil {
		t.Fatal(err)
	}
	p, err := l.start("unrecorded", host.Space, filepath.Join(l.dir, "log"), "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(host.Pins, "flows"), 0o700); err != nil {
		t.Fatal(err)
	}

	found, err := Open(l.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Down(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Error("a process of the laboratory is still running")
	}
	if _, err := Open(l.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after down: %v", err)
	}
}

func TestDownBeforeManifest(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	if names, err := list(root); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// A frame that one end of a tap VM sends must arrive at the other, both ways.
func TestTapVM(t *testing.T) {
	labtest.NeedRoot(t)
	host, vm := ns.Space(testName(t)+".h"), ns.Space(testName(t)+".v")
	for _, s := range []ns.Space{host, vm} {
		if err := s.Create(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(s.Kill(5*time.Second), s.Delete()); err != nil {
				t.Error(err)
			}
		})
		if err := plug.VM(s); err != nil {
			t.Fatal(err)
		}
	}
	nic := func(i int) plug.NIC {
		return plug.NIC{Name: "eth0", MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.99.0.%d/24", i))}}
	}
	if err := plug.Tap(host, "tap0", vm, nic(2)); err != nil {
		t.Fatal(err)
	}
	far := nic(1)
	far.Name = "tap0"
	if err := plug.Configure(host, far); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- plug.Relay(ctx, host, "tap0", vm, "eth0") }()
	ping := exec.Command("ping", "-c", "3", "-i", "0.05", "-W", "2", "10.99.0.2")
	out := &strings.Builder{}
	ping.Stdout = out
	if err := host.Start(ping); err != nil {
		t.Fatal(err)
	}
	if err := ping.Wait(); err != nil {
		t.Errorf("ping: %v\n%s", err, out)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("relay: %v", err)
	}
}
