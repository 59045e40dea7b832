package etcd_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
	"github.com/viaduct-net/viaduct/internal/topo/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a server that can be stopped and started again on its data and port.
type cluster struct {
	dir, url string
	srv      *etcd.Server
}

func start(t *testing.T) *cluster {
	c := &cluster{dir: t.TempDir(), url: "http://127.0.0.1:0"}
	c.up(t)
	c.url = c.srv.Endpoint()
	t.Cleanup(func() { c.srv.Close() })
	return c
}

func (c *cluster) up(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	srv, err := etcd.Embed(ctx, etcd.EmbedConfig{Dir: c.dir, ClientURL: c.url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.srv = srv
}

func (c *cluster) down(*testing.T) { c.srv.Close() }

func (c *cluster) open(t *testing.T) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: []string{c.srv.Endpoint()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Cluster {
		c := start(t)
		return storetest.Cluster{Open: func(t *testing.T) store.Store { return c.open(t) }, Cut: c.down, Heal: c.up}
	})
}

func TestKeys(t *testing.T) {
	storetest.RunKeys(t, func(t *testing.T) storetest.KeysCluster {
		c := start(t)
		return storetest.KeysCluster{Open: func(t *testing.T) store.Keys { return c.open(t) }, Cut: c.down, Heal: c.up}
	})
}

func TestTenant(t *testing.T) {
	c := start(t)
	storetest.RunTenant(t, storetest.Cluster{Open: func(t *testing.T) store.Store { return c.open(t) }})
}

func TestShared(t *testing.T) {
	storetest.RunShared(t, func(t *testing.T) storetest.SharedCluster {
		c := start(t)
		return storetest.SharedCluster{
			Open:    func(t *testing.T) store.Shared { return c.open(t) },
			Abandon: func(t *testing.T, s store.Shared) { s.(*etcd.Store).Close() },
		}
	})
}

func TestBundles(t *testing.T) {
	storetest.RunBundles(t, func(t *testing.T) storetest.PartsCluster {
		c := start(t)
		return storetest.PartsCluster{Open: func(t *testing.T) storetest.Parts { return c.open(t) }, Cut: c.down, Heal: c.up}
	})
}
