package admission

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded is a socket that cell no guards, and its peer.
func guarded(t *testing.T, c *Cells, no uint32) (in, out int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	if err := c.Guard(fds[1], no); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func newCells(t *testing.T, n int) *Cells {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it loads BPF programs")
	}
	c, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Any datagram socket will do: the filter knows nothing of netlink.
func TestGuard(t *testing.T) {
	c := newCells(t, 2)
	atomic.AddInt64(c.Tokens(1), 2)
	in1, out1 := guarded(t, c, 1) // which clears its cell
	in2, out2 := guarded(t, c, 2)
	atomic.AddInt64(c.Tokens(0), 1)
	atomic.AddInt64(c.Tokens(1), 2)
	for i := range 5 { // a refused one is no error of the sender
		if _, err := unix.Write(in1, []byte{byte(i)}); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if _, err := unix.Write(in2, []byte{9}); err != nil {
		t.Error(err)
	}
	b := make([]byte, 8)
	for i := range 3 {
		if n, err := unix.Read(out1, b); n != 1 || b[0] != byte(i) {
			t.Errorf("message %d: %d bytes %v, %v", i, n, b[0], err)
		}
	}
	for _, fd := range []int{out1, out2} {
		if n, err := unix.Read(fd, b); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("one more message of %d bytes: %v", n, err)
		}
	}
	for no, want := range []struct {
		tokens  int64
		refused uint64
	}{{0, 0}, {0, 2}, {0, 1}} {
		if got := atomic.LoadInt64(c.Tokens(uint32(no))); got != want.tokens || c.Refused(uint32(no)) != want.refused {
			t.Errorf("cell %d: %d tokens, %d refused; want %+v", no, got, c.Refused(uint32(no)), want)
		}
	}
}
