package live

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var a, b = uuid.UUID{1}, uuid.UUID{2}

// observer is a host that looks at the others.
type observer struct {
	*testing.T
	news chan Hosts
}

func observe(t *testing.T, s *mem.Store, grace time.Duration) *observer {
	o := &observer{t, make(chan Hosts, 1000)}
	o.run(func(ctx context.Context) error {
		return Watch(ctx, s, Hosts{}, grace, func() bool { return true }, slog.New(slog.DiscardHandler), func(h Hosts) { o.news <- h })
	})
	return o
}

// run has f run until the test ends, or stop is called.
func (o *observer) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f(ctx) })
	stop = func() { cancel(); wg.Wait() }
	o.Cleanup(stop)
	return stop
}

// await reads until exactly these are known to be dead among a and b.
func (o *observer) await(dead ...uuid.UUID) {
	o.Helper()
	for {
		select {
		case h := <-o.news:
			if h.Dead(a) == contains(dead, a) && h.Dead(b) == contains(dead, b) {
				return
			}
		case <-time.After(time.Minute):
			o.Fatalf("not after twenty seconds: %v dead", dead)
		}
	}
}

func contains(ids []uuid.UUID, id uuid.UUID) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

func TestDeath(t *testing.T) {
	srv := mem.NewServer()
	hosts := map[uuid.UUID]*mem.Store{a: srv.Client(), b: srv.Client()}
	o := observe(t, srv.Client(), 0)
	o.await(a, b) // nobody has announced itself
	stop := o.run(func(ctx context.Context) error {
		return (&Self{Host: a}).Announce(ctx, hosts[a], slog.New(slog.DiscardHandler), new(contact))
	})
	o.run(func(ctx context.Context) error {
		return (&Self{Host: b}).Announce(ctx, hosts[b], slog.New(slog.DiscardHandler), new(contact))
	})
	o.await()
	hosts[b].Expire() // b was not heard of for too long; it announces itself again
	o.await(b)
	o.await()
	stop() // a's agent ends: that alone is no death
	select {
	case h := <-o.news:
		t.Errorf("news: %+v", h)
	case <-time.After(50 * time.Millisecond):
	}
	hosts[a].Expire()
	o.await(a)
}

// Nobody dies of the store's absence: hosts that come back within the grace were alive throughout. Time is the bubble's.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := mem.NewServer()
		host, mine := srv.Client(), srv.Client()
		o := observe(t, mine, TTL)
		x, err := host.Join(t.Context(), TTL)
		if err != nil {
			t.Fatal(err)
		}
		hosts := func(f func(path string) error) {
			for _, id := range []uuid.UUID{a, b} {
				if err := f(prefix + id.String()); err != nil {
					t.Fatal(err)
				}
			}
		}
		hosts(func(path string) error { return x.Put(t.Context(), path, nil) })
		o.await()
		mine.Disconnect()
		hosts(func(path string) error { return x.Delete(t.Context(), path) }) // as after a restore of the store
		time.Sleep(time.Hour)
		mine.Reconnect()
		time.Sleep(TTL / 2)
		if err := x.Put(t.Context(), prefix+a.String(), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(TTL)
		synctest.Wait()
		last := Hosts{}
		for len(o.news) > 0 {
			if last = <-o.news; last.Dead(a) {
				t.Error("a was taken for dead")
			}
		}
		if !last.Dead(b) {
			t.Error("b has not come back, and lives")
		}
	})
}

// The store is silent to all for so long that it ends all sessions: that says nothing of hosts. One that does not come back is dead
// all the same, and so is one whose session ends alone.
func TestStoreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := mem.NewServer()
		log := slog.New(slog.DiscardHandler)
		mine, hers := srv.Client(), srv.Client()
		o := &observer{t, make(chan Hosts, 1000)}
		o.run(func(ctx context.Context) error {
			return (&Self{Host: a}).Run(ctx, mine, Hosts{}, log, func(error) {}, func(h Hosts) { o.news <- h })
		})
		stop := o.run(func(ctx context.Context) error { return (&Self{Host: b}).Announce(ctx, hers, log, new(contact)) })
		silence := func() {
			mine.Expire()
			synctest.Wait() // one that hears nothing knows that its session is over, before the store says so of others
			hers.Expire()
		}
		time.Sleep(2 * TTL)
		o.await()
		silence()
		time.Sleep(2 * TTL)
		synctest.Wait()
		for len(o.news) > 0 {
			if h := <-o.news; h.Dead(b) { // of itself a host believes nothing
				t.Error("the other host was taken for dead")
			}
		}
		stop()
		silence()
		o.await(b)
		stop = o.run(func(ctx context.Context) error { return (&Self{Host: b}).Announce(ctx, hers, log, new(contact)) })
		o.await()
		time.Sleep(2 * TTL)
		stop()
		hers.Expire()
		synctest.Wait()
		o.await(b)
	})
}

// drivers are the two that follow the rules: each says until ctx ends what is known.
var drivers = map[string]func(ctx context.Context, s *mem.Store, was Hosts, changed func(Hosts)){
	"Watch": func(ctx context.Context, s *mem.Store, was Hosts, changed func(Hosts)) {
		_ = Watch(ctx, s, was, TTL, func() bool { return true }, slog.New(slog.DiscardHandler), changed)
	},
	"Steps": func(ctx context.Context, s *mem.Store, was Hosts, changed func(Hosts)) {
		x := NewSteps(s, uuid.UUID{9}, was, changed)
		for began := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for did := true; did; {
				did, _ = x.Watch(ctx, time.Since(began))
			}
		}
	},
}

// Who was dead when it was kept is dead as long as the store does not say that it lives: while it is away, and at once when it is there. Nobody else
// dies of having lost a session to the store before grace is over.
func TestKeptDead(t *testing.T) {
	c, d := uuid.UUID{3}, uuid.UUID{4}
	was := Kept(b, c)
	if was.Dead(a) || !was.Dead(b) {
		t.Error("what is kept is not known")
	}
	for name, drive := range drivers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := mem.NewServer()
				hosts, mine := srv.Client(), srv.Client()
				x, err := hosts.Join(t.Context(), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				lives := func(ids ...uuid.UUID) {
					for _, id := range ids {
						if err := x.Put(t.Context(), Path(id), nil); err != nil {
							t.Fatal(err)
						}
					}
				}
				lives(a, c) // c has come back; d has lost its session
				mine.Disconnect()
				o := &observer{t, make(chan Hosts, 1000)}
				o.run(func(ctx context.Context) error {
					drive(ctx, mine, was, func(h Hosts) { o.news <- h })
					return nil
				})
				dead := func(want ...uuid.UUID) {
					t.Helper()
					synctest.Wait()
					if len(o.news) == 0 {
						t.Fatal("nothing is said")
					}
					for len(o.news) > 0 {
						h := <-o.news
						for _, id := range []uuid.UUID{a, b, c, d} {
							if h.Dead(id) != contains(want, id) {
								t.Errorf("%v after %v: dead: %v, want %v", id[0], time.Now(), h.Dead(id), want)
							}
						}
					}
				}
				time.Sleep(time.Hour)
				if len(o.news) > 0 {
					t.Errorf("the store is away, and says %+v", <-o.news)
				}
				mine.Reconnect()
				time.Sleep(TTL / 2)
				dead(b)
				lives(b)
				time.Sleep(TTL / 4)
				dead()
				lives(d)
				time.Sleep(2 * TTL)
				dead()
				if err := x.Delete(t.Context(), Path(d)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * TTL)
				dead(d)
			})
		})
	}
}

func TestZero(t *testing.T) {
	if (Hosts{}).Dead(a) || !Of(b).Dead(a) || Of(b).Dead(b) {
		t.Error("who knows nothing takes nobody for dead")
	}
}
