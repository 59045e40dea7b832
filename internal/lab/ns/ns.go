// Package ns makes, enters and removes named network namespaces, the same that
// `ip netns` lists. Processes are started in a namespace without `ip netns exec`,
// which mounts a /sys of its own and so hides bpffs: they keep the caller's mounts.
package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dir is where iproute2 keeps named network namespaces.
const Dir = "/run/netns"

// Space is a named network namespace. The zero value is the caller's own.
// Its methods may be called from several goroutines.
type Space string

// Path is the file that holds the namespace.
func (s Space) Path() string { return filepath.Join(Dir, string(s)) }

// Exists reports whether the name is taken.
func (s Space) Exists() bool {
	_, err := os.Lstat(s.Path())
	return err == nil
}

// Create makes the namespace and brings its loopback up. An existing name is an error.
func (s Space) Create() error {
	if s.Exists() {
		return fmt.Errorf("network namespace %s: %w", s, fs.ErrExist)
	}
	err := onThread(func() error {
		h, err := netns.NewNamed(string(s)) // leaves the thread in the new namespace
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", s, err)
	}
	return nil
}

// Delete unmounts and removes the name. The kernel frees the namespace, with all its
// interfaces, as soon as no process is left in it (see Kill). A name that does not
// exist is no error.
func (s Space) Delete() error {
	err := netns.DeleteNamed(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && s.Exists() {
		// A crash between creating the file and mounting on it leaves a plain file.
		return os.Remove(s.Path())
	}
	return err
}

// Do runs f on a thread inside the namespace. Goroutines that f starts are outside;
// sockets that f opens stay inside.
func (s Space) Do(f func() error) error {
	if s == "" {
		return f()
	}
	return onThread(func() error {
		h, err := netns.GetFromName(string(s))
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", s, err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", s, err)
		}
		return f()
	})
}

// Start starts cmd inside the namespace, with the caller's mounts.
func (s Space) Start(cmd *exec.Cmd) error { return s.Do(cmd.Start) }

// Netlink returns a route-netlink socket inside the namespace. The caller closes it.
func (s Space) Netlink() (*netlink.Handle, error) {
	var h *netlink.Handle
	err := s.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	return h, err
}

// Sysctl writes value to /proc/sys/<key> as seen from inside the namespace.
func (s Space) Sysctl(key, value string) error {
	return s.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	})
}

// onThread runs f on an OS thread that f may take to another network namespace. The
// thread is given back only when it has returned to where it was.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		home.Close()
		done <- err
	}()
	return <-done
}
