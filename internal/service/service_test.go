package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager listens as a service manager does.
func manager(t *testing.T) func() string {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	return func() string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestStates(t *testing.T) {
	said, log := manager(t), slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		say  func()
		want string
	}{
		{func() { Ready(log, "serving") }, "READY=1\nSTATUS=serving"},
		{func() { Status(log, "waiting") }, "STATUS=waiting"},
		{func() { Stopping(log) }, "STOPPING=1"},
	} {
		c.say()
		if got := said(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// The watchdog hears of a daemon that is well, and of no other.
func TestWatch(t *testing.T) {
	said := manager(t)
	t.Setenv("WATCHDOG_USEC", "10000")
	ctx, cancel := context.WithCancel(t.Context())
	calls, done := make(chan error), make(chan struct{})
	go func() {
		Watch(ctx, slog.New(slog.DiscardHandler), func(context.Context) error { return <-calls })
		close(done)
	}()
	for range 2 {
		calls <- nil
		if got := said(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	calls <- errors.New("ill")
	calls <- errors.New("ill") // only after this call is it sure that nothing was said of the first
	Status(slog.New(slog.DiscardHandler), "next")
	if got := said(); got != "STATUS=next" {
		t.Errorf("%q, want nothing before", got)
	}
	cancel()
	select {
	case calls <- nil: // one is asked already
		<-done
	case <-done:
	}
}

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	Ready(slog.New(slog.DiscardHandler), "")
	Watch(t.Context(), slog.New(slog.DiscardHandler), func(context.Context) error { t.Error("asked"); return nil })
}
