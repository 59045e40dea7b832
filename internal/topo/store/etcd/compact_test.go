package etcd_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// lines is what has been logged. Safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// group is an object with a version and n addresses.
func group(version, n int) *model.AddressGroup {
	g := &model.AddressGroup{Meta: model.Meta{ID: uuid.MustParse("00000000-0000-4000-8000-000000000001"), Name: fmt.Sprint("version ", version)}}
	for i := range n {
		g.Addresses = append(g.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(version), byte(i >> 8), byte(i)}), 32))
	}
	return g
}

// history writes a version of a group for each number of addresses, and has the store forget all but the last, which it gives.
func (c *cluster) history(t *testing.T, addresses ...int) (last *model.AddressGroup) {
	t.Helper()
	s := c.open(t)
	var rev int64
	for i, n := range addresses {
		last = group(i+1, n)
		var err error
		if rev, err = s.Txn(t.Context(), store.Op{Verb: store.Replace, Object: last}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{c.srv.Endpoint()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	return last
}

// openLogging opens a store by an endpoint and tells what it logs.
func openLogging(t *testing.T, endpoint string) (*etcd.Store, *lines) {
	t.Helper()
	log := &lines{}
	s, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, log
}

// Who follows a bundle and is so late that the store has forgotten what it was to be told reads it anew, and goes on.
func TestFeedCompacted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := start(t)
	s, log := openLogging(t, c.srv.Endpoint())
	if _, err := s.Txn(ctx, store.Op{Verb: store.Create, Object: group(0, 1)}); err != nil {
		t.Fatal(err)
	}
	f, err := s.Feed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.Want(model.Bundle{Kind: model.BundleAddressGroup, ID: group(0, 0).ID})
	first := <-f.Events()
	if !first.Whole || len(first.Objects) != 1 {
		t.Fatalf("the first event: %+v", first)
	}
	// What is held ready for somebody who does not read: 64 events by the feed, 4 MiB by the stream (the window), 128 answers by the server.
	last := c.history(t, slices.Concat(slices.Repeat([]int{1}, 70), slices.Repeat([]int{10000}, 30), slices.Repeat([]int{1}, 180))...)
	seq, rev, wholes := first.Seq, first.Revision, 0
	for name := ""; name != last.Name; {
		e, ok := <-f.Events()
		if !ok {
			t.Fatalf("the feed has ended at revision %d\n%s", rev, log)
		}
		if e.Revision <= rev {
			t.Fatalf("revision %d after %d", e.Revision, rev)
		}
		if e.Whole {
			wholes++
		} else if e.Seq != seq+1 {
			t.Fatalf("change %d after %d", e.Seq, seq)
		}
		seq, rev = e.Seq, e.Revision
		for _, o := range e.Objects {
			name = o.GetMeta().Name
		}
	}
	if wholes != 1 || !strings.Contains(log.String(), "a bundle is read anew") {
		t.Errorf("it was told as a whole %d times, want 1: it was not late, or missed something\n%s", wholes, log)
	}
}

// gate passes connections on to a server, until it is closed; then there are none.
type gate struct {
	net.Listener
	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			g.mu.Lock()
			if err != nil || g.shut {
				in.Close()
			}
			if err == nil {
				if g.shut {
					out.Close()
				}
				g.conns = append(g.conns, in, out)
				go func() { _, _ = io.Copy(in, out); in.Close() }()
				go func() { _, _ = io.Copy(out, in); out.Close() }()
			}
			g.mu.Unlock()
		}
	}()
	t.Cleanup(func() { l.Close(); g.set(true) })
	return g
}

// set shuts the gate, or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// A watch of everything ends when the store has forgotten what it was to be told, so that its reader begins anew.
func TestWatchCompacted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := start(t)
	g := newGate(t, strings.TrimPrefix(c.srv.Endpoint(), "http://"))
	s, log := openLogging(t, "http://"+g.Addr().String())
	if _, err := s.Txn(ctx, store.Op{Verb: store.Create, Object: group(0, 1)}); err != nil {
		t.Fatal(err)
	}
	events, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Synced {
			break
		}
	}
	g.set(true)
	last := c.history(t, 1, 1, 1)
	g.set(false)
	for e := range events {
		if e.Object.GetMeta().Name == last.Name {
			t.Fatalf("it was told what it cannot know the way to\n%s", log)
		}
	}
	if ctx.Err() != nil || !strings.Contains(log.String(), "compacted") {
		t.Errorf("the watch ended for another reason: %v\n%s", ctx.Err(), log)
	}
}
