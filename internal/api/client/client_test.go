package client_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient makes a client of an API over s.
func newClient(t *testing.T, s store.Store) *client.Client {
	t.Helper()
	srv := httptest.NewServer(native.New(native.Config{
		Context: t.Context(), Store: s, Version: "test", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestConformance: a store behind the API is as good as the store.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Cluster {
		behind := mem.New()
		return storetest.Cluster{
			Open: func(t *testing.T) store.Store { return newClient(t, behind) },
			Cut:  func(*testing.T) { behind.Disconnect() },
			Heal: func(*testing.T) { behind.Reconnect() },
		}
	})
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	s := mem.New()
	c := newClient(t, s)
	ctx := t.Context()
	bridge := &model.Bridge{Meta: model.Meta{ID: uuid.New(), Name: "blue"}, AdminStateUp: true}
	port := &model.Port{Meta: model.Meta{ID: uuid.New(), Name: "vm1"}, BridgeID: bridge.ID, AdminStateUp: true}
	rev, err := c.Txn(ctx, store.Op{Verb: store.Create, Object: bridge}, store.Op{Verb: store.Create, Object: port})
	if err != nil {
		t.Fatal(err)
	}
	if bridge.Revision != rev || port.Revision != rev {
		t.Errorf("revisions %d and %d, want %d", bridge.Revision, port.Revision, rev)
	}
	for name, tc := range map[string]struct {
		op   store.Op
		want error
		text string
	}{
		"not found":  {store.Op{Verb: store.Delete, Object: &model.Host{Meta: model.Meta{ID: uuid.New()}}}, store.ErrNotFound, "host"},
		"referenced": {store.Op{Verb: store.Delete, Object: bridge}, store.ErrReferenced, "port vm1"},
		"conflict":   {store.Op{Verb: store.Replace, Object: bridge, IfRevision: rev + 1}, store.ErrConflict, "bridge blue"},
		"exists":     {store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: uuid.New(), Name: "blue"}}}, store.ErrExists, "blue"},
		"invalid":    {store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: uuid.New(), Name: "p"}}}, store.ErrInvalid, "port p"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Txn(ctx, tc.op)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v naming %q", err, tc.want, tc.text)
			}
		})
	}
	s.Disconnect()
	if _, err := c.Get(ctx, model.KindBridge, bridge.ID); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("store away: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := newClient(t, mem.New())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := c.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if ev := <-events; !ev.Synced {
		t.Fatalf("first event %+v, want synced", ev)
	}
	host := &model.Host{Meta: model.Meta{ID: uuid.New(), Name: "h1"}}
	for _, verb := range []store.Verb{store.Create, store.Delete} {
		if _, err := c.Txn(ctx, store.Op{Verb: verb, Object: host}); err != nil {
			t.Fatal(err)
		}
		ev := <-events
		if ev.Object == nil || ev.Object.GetMeta().ID != host.ID || ev.Deleted != (verb == store.Delete) || !ev.Last {
			t.Fatalf("after verb %d: %+v", verb, ev)
		}
	}
	cancel()
	for range events {
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	c, err := client.New("unix://" + dir + "/none.sock")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), model.KindHost, uuid.New())
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, model.KindHost, uuid.New()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, server := range []string{"", "127.0.0.1:8181", "https://localhost/v1", "unix://x", "http://h/path", "http://"} {
		if _, err := client.New(server); err == nil {
			t.Errorf("%q was taken", server)
		}
	}
}

// TestTokensStayPrivate: a token is not sent where others can read it on its way.
func TestTokensStayPrivate(t *testing.T) {
	for server, ok := range map[string]bool{
		"http://127.0.0.1:1": true, "http://localhost:1": true, "http://[::1]:1": true, "unix:///x": true, "https://192.0.2.1": true,
		"http://192.0.2.1:1": false, "http://localhost.example:1": false,
	} {
		c, err := client.Open(client.Config{Server: server, Token: "viaduct_secret"})
		if (err == nil) != ok {
			t.Errorf("%s: %v", server, err)
		}
		if err == nil {
			c.Close()
		}
	}
}
