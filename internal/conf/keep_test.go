package conf

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hostsOf(ns ...int) func(context.Context) (map[uuid.UUID]bool, error) {
	all := make(map[uuid.UUID]bool)
	for _, n := range ns {
		all[hostID(n)] = true
	}
	return func(context.Context) (map[uuid.UUID]bool, error) { return all, nil }
}

// What is kept is what was accepted, and nothing else is written.
func TestUpdateKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := mem.New()
		defer k.Close()
		want := NewState()
		for range rapid.IntRange(1, 6).Draw(t, "transactions") {
			c := drawChange(t)
			u, err := Update(t.Context(), k, hostsOf(0, 1, 2), []Change{c})
			if err2 := want.Apply([]Change{c}); (err == nil) != (err2 == nil) {
				t.Fatalf("%v, but %v", err, err2)
			}
			got, rev, err := Load(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if rev < u.Revision {
				t.Fatalf("revision %d after %d", rev, u.Revision)
			}
			if d := cmp.Diff(want.encode(), got.encode()); d != "" {
				t.Fatalf("kept (-want +got):\n%s", d)
			}
		}
	})
}

func TestUpdateOfAHostThatIsGone(t *testing.T) {
	k := mem.New()
	defer k.Close()
	set := Change{Host: hostID(0), Set: map[string]string{vmBurst: "8"}}
	if _, err := Update(t.Context(), k, hostsOf(1), []Change{set}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a host that does not exist: %v", err)
	}
	if _, err := Update(t.Context(), k, hostsOf(0, 1), []Change{set}); err != nil {
		t.Fatal(err)
	}
	// Host 0 is deleted from the topology; the next change of anything cleans up.
	if _, err := Update(t.Context(), k, hostsOf(1), []Change{{Template: "a"}}); err != nil {
		t.Fatal(err)
	}
	if s, _, err := Load(t.Context(), k); err != nil || len(s.Hosts) != 0 || len(s.Templates) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestInitOnce(t *testing.T) {
	k := mem.New()
	defer k.Close()
	first := []Change{{Template: DefaultTemplate, Set: map[string]string{vmBurst: "8"}}, {Template: "gateway"}}
	if err := Init(t.Context(), k, []Change{{Template: "x", Set: map[string]string{vmBurst: "?"}}}); !errors.Is(err, store.ErrInvalid) {
		t.Error(err)
	}
	if err := Init(t.Context(), k, first); err != nil {
		t.Fatal(err)
	}
	// An operator may empty it: it is not filled again.
	if _, err := Update(t.Context(), k, hostsOf(), []Change{{Template: DefaultTemplate, Clear: true}, {Template: "gateway", Delete: true}}); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), k, first); !errors.Is(err, ErrInitialized) {
		t.Error(err)
	}
	if s, _, err := Load(t.Context(), k); err != nil || len(s.Templates[DefaultTemplate]) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Several operators at once: each of their keys is there in the end.
func TestUpdateRaces(t *testing.T) {
	srv := mem.NewServer()
	keys := Schema()[:6]
	var wg sync.WaitGroup
	for i := range keys {
		k := srv.Client()
		defer k.Close()
		wg.Go(func() {
			if _, err := Update(t.Context(), k, hostsOf(0), []Change{{Host: hostID(0), Set: map[string]string{keys[i].Name: "3"}}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k := srv.Client()
	defer k.Close()
	if s, _, err := Load(t.Context(), k); err != nil || len(s.Hosts[hostID(0)].Values) != len(keys) {
		t.Errorf("%+v, %v", s, err)
	}
}

// A follower sees what concerns its host, also what came while the store was away, and is not bothered with other hosts.
func TestFollow(t *testing.T) {
	srv := mem.NewServer()
	k, link := srv.Client(), srv.Client()
	defer k.Close()
	defer link.Close()
	set := func(c Change, n int) {
		t.Helper()
		c.Set = map[string]string{vmBurst: strconv.Itoa(n)}
		if _, err := Update(t.Context(), k, hostsOf(0, 1), []Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	seen, ended := make(chan int64), make(chan error)
	go func() {
		ended <- Follow(ctx, link, hostID(0), slog.New(slog.DiscardHandler), func(r Resolved, _ int64) { seen <- r.Settings.Tokens.VM })
	}()
	next := func(want int64) {
		t.Helper()
		for got := range seen { // the first value may come again after an outage
			if got == want {
				return
			}
		}
	}
	next(32)
	set(Change{Template: "default"}, 7)
	next(7)
	set(Change{Host: hostID(1)}, 9) // not ours
	set(Change{Host: hostID(0)}, 8)
	if got := <-seen; got != 8 {
		t.Errorf("got %d for another host's change", got)
	}
	link.Disconnect()
	set(Change{Host: hostID(0)}, 5)
	link.Reconnect()
	next(5)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestReports(t *testing.T) {
	k := mem.New()
	defer k.Close()
	ctx, cancel := context.WithCancel(t.Context())
	texts, ended := make(chan string), make(chan struct{})
	go func() { defer close(ended); k.Announce(ctx, ReportKey(hostID(0)), texts) }()
	want := Report{Revision: 7, Pending: []string{vmBurst}}
	texts <- want.Text()
	for {
		rs, err := Reports(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if len(rs) > 0 {
			if d := cmp.Diff(map[uuid.UUID]Report{hostID(0): want}, rs); d != "" {
				t.Error(d)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	if rs, err := Reports(t.Context(), k); err != nil || len(rs) != 0 {
		t.Errorf("%v of an agent that is gone, %v", rs, err)
	}
}
