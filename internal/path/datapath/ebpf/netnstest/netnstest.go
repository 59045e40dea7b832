// Package netnstest plugs raw sockets into veth pairs, for tests of the kernel datapath.
package netnstest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const inside = "VIADUCT_TEST_NAMESPACE"

// Main runs a package's tests in a network and a mount namespace of their own, with a bpffs of their own:
// interfaces, pins and mounts are gone when the process is. Call it from TestMain.
func Main(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: these tests make network namespaces and load BPF programs: run them as root")
		os.Exit(1)
	}
	if os.Getenv(inside) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the parent that Pdeathsig watches is a thread
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
		}
		os.Exit(1)
	}
}

func prepare() error {
	// The host's bpffs, when there is one, is not ours; the datapath mounts its own.
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return quiet()
}

// quiet keeps new interfaces of the thread's namespace from sending neighbour discovery.
func quiet() error {
	for _, which := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0o644); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// Namespace is a network namespace that lives as long as the test.
type Namespace struct{ fd netns.NsHandle }

// New makes a namespace in which IPv6 is off.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{fd: -1}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if n.fd, err = netns.Get(); err != nil {
			return err
		}
		return quiet()
	})
	if err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { n.fd.Close() })
	return n
}

// Do runs fn on a thread in the namespace. Sockets that fn opens stay in it, and so do the
// processes that it starts.
func (n *Namespace) Do(t testing.TB, fn func() error) {
	t.Helper()
	err := onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return err
		}
		return fn()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// onThread runs fn on a thread that is thrown away.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// Veth makes a pair: host stays here, peer goes to the namespace; both are up. The pair goes with the test.
func (n *Namespace) Veth(t testing.TB, host, peer string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host, TxQLen: 1000}, PeerName: peer, PeerNamespace: netlink.NsFd(n.fd)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("veth %s: %v", host, err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(veth) }) // the test may have deleted it
	if err := netlink.LinkSetUp(veth); err != nil {
		t.Fatal(err)
	}
	n.Do(t, func() error {
		l, err := netlink.LinkByName(peer)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// Here is the namespace that the tests themselves run in.
func Here(t testing.TB) *Namespace {
	t.Helper()
	fd, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fd.Close() })
	return &Namespace{fd: fd}
}
