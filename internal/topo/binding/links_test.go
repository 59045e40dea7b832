package binding

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

// effects sends each call to a channel.
type effects chan string

func (e effects) Bind(_ uuid.UUID, iface string, _ int) error { e <- "bind " + iface; return nil }
func (e effects) Up(uuid.UUID)                                {}
func (e effects) Unbind(_ uuid.UUID, iface string, _ int)     { e <- "unbind " + iface }

func (e effects) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-e:
		if got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s does not come", want)
	}
}

// newNamespace makes a network namespace without a name, which ends with its handle.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace: run it as root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestRealLinks lets an interface come, be renamed, come back and vanish.
func TestRealLinks(t *testing.T) {
	ns := newNamespace(t)
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	calls := make(effects, 10)
	m := New(calls)
	m.SetBindings([]mirror.Binding{{Port: uuid.UUID{1}, Interface: "early"}, {Port: uuid.UUID{2}, Interface: "late"}})
	add := func(name string) netlink.Link {
		t.Helper()
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
		if err := h.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
		got, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	add("early")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- WatchLinks(ctx, m, &ns, slog.Default()) }()
	calls.expect(t, "bind early")
	late := add("late")
	calls.expect(t, "bind late")
	if err := h.LinkSetName(late, "other"); err != nil {
		t.Fatal(err)
	}
	calls.expect(t, "unbind late")
	if err := h.LinkSetName(late, "late"); err != nil {
		t.Fatal(err)
	}
	calls.expect(t, "bind late")
	if s := m.State(); len(s) != 2 || s[1].State != Down || s[1].IfIndex != late.Attrs().Index {
		t.Errorf("a veth that nobody has set up: %+v", s)
	}
	if err := h.LinkDel(late); err != nil {
		t.Fatal(err)
	}
	calls.expect(t, "unbind late")
	again := add("late")
	calls.expect(t, "bind late")
	if s := m.State(); s[1].IfIndex != again.Attrs().Index {
		t.Errorf("%+v, want index %d", s[1], again.Attrs().Index)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchLinks: %v", err)
	}
}
