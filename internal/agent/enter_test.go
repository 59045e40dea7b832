package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// The agent of a second machine with a host's name does not start: it touches no datapath and no binding, and says where the other is and what to do.
// The first one goes on, and says so too. Started again, that one is the host at once.
func TestTwoMachinesOfOneName(t *testing.T) {
	l := newLife(t, network()...)
	l.machine = live.Machine{ID: "boot-1", Name: "rack1", Address: "192.0.2.1"}
	l.begin(false)
	l.serves()

	link := l.server.Client()
	defer link.Close()
	opened := false
	second := func(s *mem.Store) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return Run(ctx, Config{
			Open: func(*conf.Settings) (datapath.Datapath, error) {
				opened = true
				return fake.New(clock.NewSystem(), 1), nil
			},
			Store: s, Bundles: s, Keys: s, Shared: s, Host: "h1", RunDir: t.TempDir(), TunnelDevice: "none", Log: logs.Discard(),
			Machine: live.Machine{ID: "boot-2", Name: "rack2", Address: "192.0.2.2"}, patience: 10 * time.Millisecond,
		})
	}
	err := second(link)
	if !errors.Is(err, live.ErrTaken) || opened {
		t.Fatalf("the second agent: %v; has opened a datapath: %v", err, opened)
	}
	for _, want := range []string{"host h1", "machine rack1 at 192.0.2.1", "viaduct agent --host NAME"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	trouble := func() string {
		s, err := l.client.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(s.Troubles, "; ")
	}
	l.await("the first says so", func() bool { return strings.Contains(trouble(), "machine rack2 at 192.0.2.2") })
	if !strings.HasPrefix(trouble(), troubleName+": ") {
		t.Errorf("trouble %q", trouble())
	}
	link.Expire()
	l.await("it is over", func() bool { return trouble() == "" })
	l.answered("10.0.0.1")

	l.stop()
	l.begin(false)
	l.serves()
	l.answered("10.0.0.1")
	l.stop()
}
