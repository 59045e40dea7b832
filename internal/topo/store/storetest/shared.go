package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// SharedCluster is Cluster for store.Shared.
type SharedCluster struct {
	// Open connects a client.
	Open func(t *testing.T) store.Shared
	// Abandon ends a client without a word to the store.
	Abandon func(t *testing.T, s store.Shared)
}

// RunShared checks an implementation of store.Shared.
func RunShared(t *testing.T, start func(t *testing.T) SharedCluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, SharedCluster)
	}{
		{"Watch", testSharedWatch},
		{"Claim", testSharedClaim},
		{"ClaimRace", testSharedRace},
		{"Close", testSharedClose},
		{"Abandoned", testSharedAbandoned},
		{"Without", testSharedWithout},
		{"WithoutRace", testSharedWithoutRace},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

const ttl = 2 * time.Second

func join(t *testing.T, s store.Shared) store.Session {
	t.Helper()
	x, err := s.Join(withPatience(t), ttl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close(context.Background()) }) // most have ended by then
	return x
}

// sharedView follows entries and keeps what there is.
type sharedView struct {
	t      *testing.T
	ch     <-chan store.SharedEvent
	have   map[string]string
	synced int64 // 0: still the initial state; then of the last event
}

func watchShared(t *testing.T, s store.Shared, prefix string) *sharedView {
	t.Helper()
	ch, err := s.WatchShared(withPatience(t), prefix)
	if err != nil {
		t.Fatal(err)
	}
	v := &sharedView{t: t, ch: ch, have: map[string]string{}}
	for !v.next().Synced {
	}
	return v
}

func (v *sharedView) next() store.SharedEvent {
	v.t.Helper()
	e, ok := <-v.ch
	if !ok {
		v.t.Fatal("the watch has ended")
	}
	switch {
	case e.Synced:
		v.synced = e.Revision
	case e.Revision <= v.synced && v.synced != 0:
		v.t.Errorf("after revision %d comes %d", v.synced, e.Revision)
	case v.synced != 0:
		v.synced = e.Revision
	}
	switch {
	case e.Deleted:
		delete(v.have, e.Path)
	case !e.Synced:
		v.have[e.Path] = string(e.Value)
	}
	return e
}

// await reads until the entries are as wanted: path, value, path, value...
func (v *sharedView) await(want ...string) {
	v.t.Helper()
	same := func() bool {
		if len(v.have) != len(want)/2 {
			return false
		}
		for i := 0; i < len(want); i += 2 {
			if got, ok := v.have[want[i]]; !ok || got != want[i+1] {
				return false
			}
		}
		return true
	}
	for !same() {
		v.next()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testSharedWatch(t *testing.T, c SharedCluster) {
	a, b := c.Open(t), c.Open(t)
	x, ctx := join(t, a), withPatience(t)
	must(t, x.Put(ctx, "mac/1", []byte("one")))
	must(t, x.Put(ctx, "arp/1", []byte("other")))
	macs, all := watchShared(t, b, "mac/"), watchShared(t, b, "")
	macs.await("mac/1", "one")
	all.await("mac/1", "one", "arp/1", "other")
	value := []byte("two")
	must(t, x.Put(ctx, "mac/2", value))
	copy(value, "xxx") // it was the caller's
	macs.await("mac/1", "one", "mac/2", "two")
	must(t, x.Put(ctx, "mac/1", []byte("moved")))
	macs.await("mac/1", "moved", "mac/2", "two")
	must(t, x.Delete(ctx, "mac/1"))
	must(t, x.Delete(ctx, "mac/9"))
	macs.await("mac/2", "two")
	// Another host may take an entry over; then it is no longer the first one's to delete.
	y := join(t, b)
	must(t, y.Put(ctx, "mac/2", []byte("mine")))
	must(t, x.Delete(ctx, "mac/2"))
	must(t, y.Put(ctx, "mac/3", nil))
	macs.await("mac/2", "mine", "mac/3", "")
	must(t, x.Close(ctx))
	all.await("mac/2", "mine", "mac/3", "")
}

func testSharedClaim(t *testing.T, c SharedCluster) {
	a, b := c.Open(t), c.Open(t)
	x, y, ctx := join(t, a), join(t, b), withPatience(t)
	v := watchShared(t, a, "")
	claim := func(s store.Session, value string, want bool) {
		t.Helper()
		if got, err := s.Claim(ctx, "leader", []byte(value)); err != nil || got != want {
			t.Errorf("%s: claimed %v, %v", value, got, err)
		}
	}
	claim(x, "x", true)
	claim(y, "y", false)
	claim(x, "x again", true)
	v.await("leader", "x again")
	claim(y, "x again", true) // x has come back
	must(t, x.Delete(ctx, "leader"))
	claim(x, "x", false)
	v.await("leader", "x again")
	must(t, y.Close(ctx))
	v.await()
	claim(x, "x", true)
	v.await("leader", "x")
}

func testSharedRace(t *testing.T, c SharedCluster) {
	ctx := withPatience(t)
	var sessions []store.Session
	for range 4 {
		sessions = append(sessions, join(t, c.Open(t)))
	}
	for round := range 10 {
		var wg sync.WaitGroup
		var winners atomic.Int32
		for i, s := range sessions {
			wg.Go(func() {
				mine, err := s.Claim(ctx, fmt.Sprint("block/", round), bytes.Repeat([]byte{'a' + byte(i)}, 3))
				if err != nil {
					t.Error(err)
				}
				if mine {
					winners.Add(1)
				}
			})
		}
		if wg.Wait(); winners.Load() != 1 {
			t.Errorf("round %d: %d have claimed it", round, winners.Load())
		}
	}
}

func testSharedClose(t *testing.T, c SharedCluster) {
	a := c.Open(t)
	x, ctx := join(t, a), withPatience(t)
	must(t, x.Put(ctx, "host/1", nil))
	select {
	case <-x.Done():
		t.Error("a new session has ended")
	default:
	}
	must(t, x.Close(ctx))
	<-x.Done()
	if err := x.Put(ctx, "host/1", nil); err == nil {
		t.Error("a session that has ended writes")
	}
	if _, err := x.Claim(ctx, "host/2", nil); err == nil {
		t.Error("a session that has ended claims")
	}
	watchShared(t, a, "").await()
	must(t, x.Close(ctx)) // once more is no error
}

func testSharedAbandoned(t *testing.T, c SharedCluster) {
	a, b := c.Open(t), c.Open(t)
	ctx := withPatience(t)
	must(t, join(t, a).Put(ctx, "host/1", nil))
	must(t, join(t, b).Put(ctx, "host/2", nil))
	v := watchShared(t, b, "")
	v.await("host/1", "", "host/2", "")
	c.Abandon(t, a)
	v.await("host/2", "")
}

// What is done while an entry is not there is refused when it is, whoever it belongs to.
func testSharedWithout(t *testing.T, c SharedCluster) {
	a, b := c.Open(t), c.Open(t)
	x, ctx := join(t, a), withPatience(t)
	must(t, x.Put(ctx, "host/1", nil))
	must(t, x.Put(ctx, "host/22", nil)) // is no host/2
	for _, s := range []store.Shared{a, b} {
		if _, err := s.TxnWithout(ctx, "host/1", create(bridge(1, ""))...); !errors.Is(err, store.ErrPresent) {
			t.Errorf("while the entry is there: %v", err)
		}
	}
	rev, err := b.TxnWithout(ctx, "host/2", create(bridge(1, ""))...)
	if err != nil || rev == 0 {
		t.Errorf("there has never been one: %d, %v", rev, err)
	}
	must(t, x.Delete(ctx, "host/1"))
	if _, err := b.TxnWithout(ctx, "host/1", create(bridge(1, ""))...); !errors.Is(err, store.ErrExists) {
		t.Errorf("what is refused anyway: %v", err)
	}
	if _, err := b.TxnWithout(ctx, "host/1", create(bridge(2, ""))...); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// What is done without an entry is done before the entry is there.
func testSharedWithoutRace(t *testing.T, c SharedCluster) {
	a, b := c.Open(t), c.Open(t)
	x, ctx := join(t, a), withPatience(t)
	v := watchShared(t, b, "host/")
	for round := range byte(20) {
		path := fmt.Sprint("host/", round)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := x.Put(ctx, path, nil); err != nil {
				t.Error(err)
			}
		})
		rev, err := b.TxnWithout(ctx, path, create(bridge(1+round, ""))...)
		wg.Wait()
		put := int64(0)
		for put == 0 {
			if e := v.next(); e.Path == path {
				put = e.Revision
			}
		}
		switch {
		case err == nil && rev > put:
			t.Errorf("round %d: done at %d, and the entry is of %d", round, rev, put)
		case err != nil && !errors.Is(err, store.ErrPresent):
			t.Errorf("round %d: %v", round, err)
		}
	}
}
