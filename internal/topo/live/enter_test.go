package live

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// stores runs f with each implementation: with one that opens clients, and one that has a client end without a word.
func stores(t *testing.T, f func(t *testing.T, open func() store.Shared, abandon func(store.Shared))) {
	t.Run("mem", func(t *testing.T) {
		srv := mem.NewServer()
		f(t, func() store.Shared {
			c := srv.Client()
			t.Cleanup(func() { c.Close() })
			return c
		}, func(s store.Shared) { s.(*mem.Store).Expire() })
	})
	t.Run("etcd", func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		srv, err := etcd.Embed(t.Context(), etcd.EmbedConfig{Dir: t.TempDir(), ClientURL: "http://127.0.0.1:0", Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { srv.Close() })
		f(t, func() store.Shared {
			c, err := etcd.Open(etcd.Config{Endpoints: []string{srv.Endpoint()}, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}, func(s store.Shared) { s.(*etcd.Store).Close() })
	})
}

var (
	one = Machine{ID: "boot-1", Name: "rack1", Address: "192.0.2.1"}
	two = Machine{ID: "boot-2", Name: "rack2", Address: "192.0.2.2"}
)

// Of two machines of one name the second is refused, and both say so and name the other.
func TestTwoMachines(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, open func() store.Shared, abandon func(store.Shared)) {
		said := make(chan error, 100)
		begin := func(m Machine, s store.Shared) (stop func()) {
			t.Helper()
			self := &Self{Host: a, Machine: m}
			if err := self.Enter(t.Context(), s, func(Machine) { t.Errorf("machine %s waits", m.Name) }); err != nil {
				t.Fatal(err)
			}
			return (&observer{T: t}).run(func(ctx context.Context) error {
				return self.Run(ctx, s, Hosts{}, slog.New(slog.DiscardHandler), func(err error) { said <- err }, func(Hosts) {})
			})
		}
		await := func(want error, text string) {
			t.Helper()
			for end := time.After(30 * time.Second); ; {
				select {
				case err := <-said:
					if errors.Is(err, want) && (err == nil || strings.Contains(err.Error(), text)) {
						return
					}
				case <-end:
					t.Fatalf("not said: %v of %s", want, text)
				}
			}
		}
		first := open()
		stop := begin(one, first)
		await(nil, "")

		// An agent on the same machine that soon ends leaves the host to the first.
		short := open()
		if err := (&Self{Host: a, Machine: one}).Enter(t.Context(), short, nil); err != nil {
			t.Fatal(err)
		}
		seen := watchHeld(t, open())
		abandon(short)
		for held := true; held; {
			held = <-seen
		}
		for held := false; !held; {
			held = <-seen
		}

		refused := &Self{Host: a, Machine: two, Patience: 50 * time.Millisecond}
		rival := open()
		waits := 0
		err := refused.Enter(t.Context(), rival, func(m Machine) {
			if waits++; m != one {
				t.Errorf("it waits for %+v, want %+v", m, one)
			}
		})
		if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "machine rack1 at 192.0.2.1") || waits != 1 {
			t.Errorf("the second: %v, having waited %d times", err, waits)
		}
		await(ErrWanted, "machine rack2 at 192.0.2.2")
		abandon(rival)
		await(nil, "")

		// Another agent on the first machine, whose session has not ended, takes over at once.
		stop()
		next := open()
		stop = begin(one, next)
		abandon(first)
		await(nil, "")

		// When that has died, the second gets the host as soon as its session ends.
		stop()
		third := open()
		entered := make(chan error, 1)
		self := &Self{Host: a, Machine: two, Patience: time.Minute}
		go func() {
			entered <- self.Enter(t.Context(), third, func(Machine) { abandon(next) })
		}()
		select {
		case err := <-entered:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a dead machine keeps the host")
		}
	})
}

// watchHeld says, after each change, whether some machine is host a.
func watchHeld(t *testing.T, s store.Shared) <-chan bool {
	events, err := s.WatchShared(t.Context(), machinePath(a))
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan bool)
	(&observer{T: t}).run(func(ctx context.Context) error {
		o := occupants{self: &Self{Host: a}}
		for e := range events {
			if o.take(e); !o.synced {
				continue
			}
			select {
			case held <- o.held:
			case <-ctx.Done():
			}
		}
		return nil
	})
	return held
}

// A machine that has begun without the store finds, when that is there, that another one is the host: it says so, and gets the host later.
func TestNameTakenMeanwhile(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, open func() store.Shared, abandon func(store.Shared)) {
		said := make(chan error, 100)
		s := open()
		other := &Self{Host: a, Machine: one}
		if err := other.Enter(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
		late := &Self{Host: a, Machine: two}
		(&observer{T: t}).run(func(ctx context.Context) error {
			return late.Run(ctx, open(), Hosts{}, slog.New(slog.DiscardHandler), func(err error) { said <- err }, func(Hosts) {})
		})
		for taken := false; ; {
			select {
			case err := <-said:
				switch {
				case errors.Is(err, ErrTaken) && !taken:
					if !strings.Contains(err.Error(), "machine rack1 at 192.0.2.1") && !strings.Contains(err.Error(), "boot-1") {
						t.Errorf("%v", err)
					}
					taken = true
					abandon(s)
				case err == nil && taken:
					return
				}
			case <-time.After(40 * time.Second):
				t.Fatalf("taken: %v, and then nothing", taken)
			}
		}
	})
}

func TestThis(t *testing.T) {
	x, err := This(t.Context(), []string{"http://127.0.0.1:2379"})
	if err != nil {
		t.Fatal(err)
	}
	y, err := This(t.Context(), nil)
	if err != nil || x.ID != y.ID {
		t.Errorf("it is %q and then %q, %v", x.ID, y.ID, err)
	}
	if name, _ := os.Hostname(); x.Name != name {
		t.Errorf("name %q, want %q", x.Name, name)
	}
	for _, m := range []Machine{x, one, {ID: "x"}, {}} {
		if got := parseMachine(m.text()); got != m {
			t.Errorf("%+v became %+v", m, got)
		}
	}
}
