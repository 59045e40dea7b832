package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// sharing is a host that shares what it learns.
type sharing struct {
	*sharer
	t     *testing.T
	store *mem.Store
	mu    sync.Mutex
	news  []tag.Tag
}

// newSharing begins one; before that it does what there is to be done first.
func newSharing(t *testing.T, srv *mem.Server, name string, first ...func(*sharing)) *sharing {
	c := srv.Client()
	h := &sharing{t: t, store: c}
	h.sharer = &sharer{
		host: name, tables: state.New(state.DefaultConfig(), new(clock.Manual)), store: c, log: slog.New(slog.DiscardHandler),
		wake: make(chan struct{}, 1), dirty: map[tag.Tag]struct{}{}, told: map[tag.Tag]state.Learnt{}, far: map[tag.Tag]bool{}, wanted: func() bool { return true },
		changed: func(tags []tag.Tag) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.news = append(h.news, tags...)
		},
	}
	for _, f := range first {
		f(h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.tell(ctx) })
	wg.Go(func() { _ = h.hear(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// learn has the host see the MAC behind a port.
func (h *sharing) learn(mac byte, port uuid.UUID) {
	t, _, _ := h.tables.LearnMAC(ids(1), 0, match.MAC{2, 5: mac}, port)
	h.note([]tag.Tag{t})
}

func (h *sharing) await(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("host %s: not after twenty seconds: %s", h.host, what)
		}
	}
}

func (h *sharing) finds(mac byte, port uuid.UUID) func() bool {
	return func() bool {
		got, ok := h.tables.MAC(ids(1), 0, match.MAC{2, 5: mac})
		return ok == (port != uuid.Nil) && got == port
	}
}

func TestShare(t *testing.T) {
	srv := mem.NewServer()
	a, b := newSharing(t, srv, "a"), newSharing(t, srv, "b")
	here, there := ids(6), ids(7)
	a.learn(1, here)
	b.await("a's MAC", b.finds(1, here))
	want := tag.Tag{Kind: tag.MACEntry, ID: ids(1), MAC: match.MAC{2, 5: 1}}
	b.await("its tag", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return slices.Contains(b.news, want) })

	// It moves to the other host: the first one forgets what it has seen itself.
	b.learn(1, there)
	a.await("that it has moved", a.finds(1, there))
	a.await("its tag", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return slices.Contains(a.news, want) })

	// Neighbours of router ports, for packets that wait for them.
	addr := match.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 9}
	n, _, _ := a.tables.LearnNeighbour(ids(5), addr, match.MAC{2, 5: 9}, ids(6))
	a.note([]tag.Tag{n})
	b.await("a's neighbour", func() bool {
		m, ok, failed := b.tables.Neighbour(ids(5), addr)
		return ok && !failed && m == match.MAC{2, 5: 9}
	})

	// A session that ends takes everything along; the host tells it anew.
	b.store.Expire()
	a.await("that b's is gone", a.finds(1, uuid.Nil))
	a.await("that b has told again", a.finds(1, there))

	// What has expired there is gone here.
	b.note(b.tables.Forget(there))
	a.await("that b has forgotten", a.finds(1, uuid.Nil))
}

// What two hosts know is known to the third until neither does: each entry is that of the host that wrote last.
func TestShareTwice(t *testing.T) {
	srv := mem.NewServer()
	a, b, c := newSharing(t, srv, "a"), newSharing(t, srv, "b"), newSharing(t, srv, "c")
	here := ids(6)
	a.learn(1, here)
	b.await("a's MAC", b.finds(1, here))
	for i, h := range []*sharing{b, a, b} {
		h.learn(1, here)
		h.learn(byte(2+i), here)
		c.await("that it has told", c.finds(byte(2+i), here))
	}
	b.note(b.tables.Forget(here))
	c.await("that b has forgotten", c.finds(4, uuid.Nil))
	c.await("that a has told again", c.finds(1, here))
	a.note(a.tables.Forget(here))
	c.await("that a has forgotten, too", c.finds(1, uuid.Nil))
}

// What changes while a host cannot reach the store is known to it afterwards; until then the last known stays.
func TestShareAway(t *testing.T) {
	srv := mem.NewServer()
	a, b := newSharing(t, srv, "a"), newSharing(t, srv, "b")
	here := ids(6)
	for mac := byte(1); mac <= 3; mac++ {
		a.learn(mac, here)
		b.await("a's MAC", b.finds(mac, here))
	}
	b.store.Disconnect()
	a.note(a.tables.Forget(here))
	a.learn(3, here)
	a.learn(4, here)
	if !b.finds(1, here)() {
		t.Error("without the store the last known is gone")
	}
	b.store.Reconnect()
	b.await("the new MAC", b.finds(4, here))
	b.await("that an old one is gone", b.finds(1, uuid.Nil))
	b.await("that an old one is gone", b.finds(2, uuid.Nil))
	b.await("that one stays", b.finds(3, here))
}

// A host that begins while the store is away goes on with what an earlier agent had heard and kept, and takes over what has changed when the store is back.
func TestShareKept(t *testing.T) {
	srv := mem.NewServer()
	a, b := newSharing(t, srv, "a"), newSharing(t, srv, "b")
	here := ids(6)
	a.learn(1, here)
	a.learn(2, here)
	addr := match.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 9}
	n, _, _ := a.tables.LearnNeighbour(ids(5), addr, match.MAC{2, 5: 9}, ids(6))
	a.note([]tag.Tag{n})
	b.await("all that a has learnt", func() bool { return b.heardUntil() == 3 })
	kept, err := b.keep()
	if err != nil || len(kept) != 3 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	kept["learnt/of/a/later/version"] = "?"
	next := newSharing(t, srv, "b", func(h *sharing) {
		h.store.Disconnect()
		h.restore(kept)
	})
	if m, ok, _ := next.tables.Neighbour(ids(5), addr); !ok || m != (match.MAC{2, 5: 9}) || !next.finds(1, here)() || !next.finds(2, here)() {
		t.Error("what was kept is not known")
	}
	if again, err := next.keep(); err != nil || len(again) != 3 {
		t.Errorf("it would keep %v, %v", again, err)
	}
	a.note(a.tables.Forget(here))
	a.learn(2, here)
	next.store.Reconnect()
	next.await("that one is gone", next.finds(1, uuid.Nil))
	next.await("that one stays", next.finds(2, here))
}

func TestLearntPath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tag.Tag{Kind: tag.MACEntry, ID: uuid.UUID{rapid.Byte().Draw(t, "id")}, VLAN: rapid.Uint16Range(0, 4095).Draw(t, "vlan"), MAC: match.MAC{1, 5: rapid.Byte().Draw(t, "mac")}}
		if rapid.Bool().Draw(t, "neighbour") {
			want = tag.Tag{Kind: tag.Neighbour, ID: want.ID}
			copy(want.Addr[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))
		}
		if got, err := parseLearnt(learntPath(want)); err != nil || got != want {
			t.Fatalf("%s: %v, %v", learntPath(want), got, err)
		}
	})
	for _, bad := range []string{"", "learnt/", "learnt/mac/x/0/02:00:00:00:00:01", "learnt/mac/00000000-0000-0000-0000-000000000001/4096/02:00:00:00:00:01",
		"learnt/neighbour/00000000-0000-0000-0000-000000000001/10.0.0", "learnt/other/00000000-0000-0000-0000-000000000001/1"} {
		if _, err := parseLearnt(bad); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

// refusing is a session whose writes fail so many times.
type refusing struct {
	store.Session
	times int
	paths []string
}

func (x *refusing) Put(_ context.Context, path string, _ []byte) error {
	if x.times--; x.times >= 0 {
		return store.ErrUnavailable
	}
	x.paths = append(x.paths, path)
	return nil
}

// When the store fails in the middle of what was taken to be told, the rest of it is told later, too.
func TestNothingLearntIsLost(t *testing.T) {
	s := &sharer{
		host: "a", tables: state.New(state.DefaultConfig(), new(clock.Manual)), log: slog.New(slog.DiscardHandler),
		dirty: map[tag.Tag]struct{}{}, told: map[tag.Tag]state.Learnt{}, wanted: func() bool { return true },
	}
	for mac := range byte(3) {
		tg, _, _ := s.tables.LearnMAC(ids(1), 0, match.MAC{2, 5: mac}, ids(6))
		s.note([]tag.Tag{tg})
	}
	x := &refusing{times: 1}
	if err := s.tellSome(t.Context(), x, s.some); err == nil {
		t.Fatal("no error")
	}
	s.anew()
	if err := s.tellSome(t.Context(), x, s.some); err != nil || len(x.paths) != 3 {
		t.Errorf("told: %v, %v", x.paths, err)
	}
}

// closing is a session that fails once, or counts that it is closed.
type closing struct {
	refusing
	closed int
}

func (x *closing) Close(context.Context) error { x.closed++; return nil }

// A session that could not be written to may live on: it ends when all is told in the next one.
func TestOldSessionsEnd(t *testing.T) {
	s := &sharer{dirty: map[tag.Tag]struct{}{{Kind: tag.MACEntry}: {}}}
	x := &closing{}
	s.old = append(s.old, x)
	if s.endOld(t.Context()); x.closed != 0 {
		t.Error("closed before all is told")
	}
	clear(s.dirty)
	s.endOld(t.Context())
	if s.endOld(t.Context()); x.closed != 1 {
		t.Errorf("closed %d times", x.closed)
	}
}
