package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// KeysCluster is one store and the links to it, as Cluster is.
type KeysCluster struct {
	Open      func(t *testing.T) store.Keys
	Cut, Heal func(t *testing.T)
}

// RunKeys checks an implementation of store.Keys, which is a store.Store too.
func RunKeys(t *testing.T, start func(t *testing.T) KeysCluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, KeysCluster)
	}{
		{"ReadAndWrite", testReadAndWriteKeys},
		{"Guard", testGuard},
		{"Race", testGuardRace},
		{"Watch", testWatchKeys},
		{"WatchOutage", testWatchKeysOutage},
		{"Announce", testAnnounce},
		{"ApartFromObjects", testKeysAreNoObjects},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

func write(t *testing.T, k store.Keys, guard string, since int64, kv ...string) (int64, error) {
	t.Helper()
	changes := make(map[string]*string)
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] == "-" {
			changes[kv[i]] = nil
		} else {
			changes[kv[i]] = &kv[i+1]
		}
	}
	return k.WriteKeys(withPatience(t), guard, since, changes)
}

func read(t *testing.T, k store.Keys, prefixes ...string) (map[string]string, int64) {
	t.Helper()
	m, rev, err := k.ReadKeys(withPatience(t), prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return m, rev
}

func testReadAndWriteKeys(t *testing.T, c KeysCluster) {
	k := c.Open(t)
	got, rev := read(t, k, ".a/")
	if len(got) != 0 {
		t.Errorf("at first there is %v", got)
	}
	rev2, err := write(t, k, ".a/.guard", rev, ".a/1", "one", ".a/2", "", ".b/1", "b")
	if err != nil || rev2 <= rev {
		t.Fatal(rev2, err)
	}
	want := map[string]string{".a/.guard": "", ".a/1": "one", ".a/2": ""}
	if got, rev := read(t, k, ".a/"); !maps.Equal(got, want) || rev != rev2 {
		t.Errorf("%v at %d, want %v at %d", got, rev, want, rev2)
	}
	if got, _ := read(t, c.Open(t), ".a/1", ".b/"); !maps.Equal(got, map[string]string{".a/1": "one", ".b/1": "b"}) {
		t.Errorf("another client has %v", got)
	}
	if _, err := write(t, k, ".a/.guard", rev2, ".a/1", "-", ".a/3", "three", "bridge/x", "no"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a key without a dot: %v", err)
	}
	if _, err := write(t, k, ".a/.guard", rev2, ".a/1", "-", ".a/never", "-"); err != nil {
		t.Error(err)
	}
	delete(want, ".a/1")
	if got, _ := read(t, k, ".a/"); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func testGuard(t *testing.T, c KeysCluster) {
	a, b := c.Open(t), c.Open(t)
	_, rev := read(t, a, ".a/")
	if _, err := write(t, b, ".a/.guard", rev, ".a/1", "b"); err != nil {
		t.Fatal(err)
	}
	before, _ := read(t, a, ".a/")
	if _, err := write(t, a, ".a/.guard", rev, ".a/1", "a", ".a/2", "a"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("on what is out of date: %v", err)
	}
	after, rev := read(t, a, ".a/")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("a refused write has changed:\n%s", d)
	}
	if _, err := write(t, b, ".b/.guard", rev, ".a/1", "other"); err != nil { // under another guard
		t.Fatal(err)
	}
	if _, err := write(t, a, ".a/.guard", rev, ".a/1", "a"); err != nil {
		t.Errorf("nobody else has written under this guard: %v", err)
	}
}

// Several clients add to one number: none is lost.
func testGuardRace(t *testing.T, c KeysCluster) {
	const clients, each = 4, 10
	var wg sync.WaitGroup
	for range clients {
		k := c.Open(t)
		wg.Go(func() {
			for n := 0; n < each; {
				have, rev, err := k.ReadKeys(withPatience(t), ".a/")
				if err != nil {
					t.Error(err)
					return
				}
				more := have[".a/n"] + "x"
				_, err = k.WriteKeys(withPatience(t), ".a/.guard", rev, map[string]*string{".a/n": &more})
				switch {
				case err == nil:
					n++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, _ := read(t, c.Open(t), ".a/n"); len(got[".a/n"]) != clients*each {
		t.Errorf("%d of %d", len(got[".a/n"]), clients*each)
	}
}

func testWatchKeys(t *testing.T, c KeysCluster) {
	k, w := c.Open(t), c.Open(t)
	ctx, cancel := context.WithCancel(withPatience(t))
	defer cancel()
	news, err := w.WatchKeys(ctx, ".a/", ".b/x/")
	if err != nil {
		t.Fatal(err)
	}
	_, rev := read(t, k, ".")
	if first := <-news; first != rev {
		t.Errorf("begins with %d, want %d", first, rev)
	}
	for _, key := range []string{".a/1", ".b/x/1", ".a/2"} {
		if _, err := write(t, k, ".g", rev, ".b/y/1", key); err != nil { // not watched
			t.Fatal(err)
		}
		_, rev = read(t, k, ".")
		want, err := write(t, k, ".g", rev, key, "v")
		if err != nil {
			t.Fatal(err)
		}
		if got := <-news; got != want {
			t.Errorf("%s: news of %d, want %d", key, got, want)
		}
		rev = want
	}
	cancel()
	for range news {
	}
}

// Who watches anew when the stream has broken misses nothing.
func testWatchKeysOutage(t *testing.T, c KeysCluster) {
	k, w := c.Open(t), c.Open(t)
	news, err := w.WatchKeys(withPatience(t), ".a/")
	if err != nil {
		t.Fatal(err)
	}
	c.Cut(t)
	brief, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, _, err := k.ReadKeys(brief, ".a/"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while cut: %v", err)
	}
	if _, err := k.WriteKeys(brief, ".g", 0, nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while cut: %v", err)
	}
	c.Heal(t)
	value := "v"
	for {
		_, err := k.WriteKeys(withPatience(t), ".g", 1<<40, map[string]*string{".a/1": &value})
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	for {
		if _, ok := <-news; !ok {
			if news, err = w.WatchKeys(withPatience(t), ".a/"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, _, err := w.ReadKeys(withPatience(t), ".a/"); err == nil && got[".a/1"] == value {
			return
		}
	}
}

func testAnnounce(t *testing.T, c KeysCluster) {
	k, reader := c.Open(t), c.Open(t)
	until := func(want string) {
		t.Helper()
		news, err := reader.WatchKeys(withPatience(t), ".report/")
		if err != nil {
			t.Fatal(err)
		}
		for range news {
			if got, _ := read(t, reader, ".report/"); got[".report/1"] == want {
				return
			}
		}
		t.Fatalf("never %q", want)
	}
	for _, end := range []string{"cancelled", "closed"} {
		ctx, cancel := context.WithCancel(withPatience(t))
		values, ended := make(chan string), make(chan error, 1)
		go func() { ended <- k.Announce(ctx, ".report/1", values) }()
		values <- "one"
		until("one")
		values <- "two"
		until("two")
		var want error
		if end == "closed" {
			close(values)
		} else {
			cancel()
			want = context.Canceled
		}
		if err := <-ended; !errors.Is(err, want) {
			t.Errorf("%s: %v", end, err)
		}
		until("")
		cancel()
	}
}

// Whoever watches or lists objects sees nothing of keys.
func testKeysAreNoObjects(t *testing.T, c KeysCluster) {
	k := c.Open(t)
	objects := k.(store.Store)
	w := follow(t, objects)
	_, rev := read(t, k, ".")
	if _, err := write(t, k, ".a/g", rev, ".a/1", "v"); err != nil {
		t.Fatal(err)
	}
	rev = mustTxn(t, objects, create(bridge(1, "b"))...)
	if e := w.next(t); e.Revision != rev || e.Object.GetMeta().ID != id(1) {
		t.Errorf("after a key comes %+v", e)
	}
	if got := state(t, objects); len(got) != 1 {
		t.Errorf("%v", slices.Collect(maps.Keys(got)))
	}
	if got, _ := read(t, k, ".a/"); len(got) != 2 {
		t.Errorf("%v", got)
	}
}
