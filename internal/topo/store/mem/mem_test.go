package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a server with clients that are cut off, and connected again, together.
type cluster struct {
	srv     *mem.Server
	clients []*mem.Store
}

func (c *cluster) open(t *testing.T) *mem.Store {
	s := c.srv.Client()
	c.clients = append(c.clients, s)
	t.Cleanup(func() { s.Close() })
	return s
}

func (c *cluster) each(f func(*mem.Store)) func(*testing.T) {
	return func(*testing.T) {
		for _, s := range c.clients {
			f(s)
		}
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Cluster {
		c := &cluster{srv: mem.NewServer()}
		return storetest.Cluster{
			Open: func(t *testing.T) store.Store { return c.open(t) },
			Cut:  c.each((*mem.Store).Disconnect), Heal: c.each((*mem.Store).Reconnect),
		}
	})
}

func TestKeys(t *testing.T) {
	storetest.RunKeys(t, func(*testing.T) storetest.KeysCluster {
		c := &cluster{srv: mem.NewServer()}
		return storetest.KeysCluster{
			Open: func(t *testing.T) store.Keys { return c.open(t) },
			Cut:  c.each((*mem.Store).Disconnect), Heal: c.each((*mem.Store).Reconnect),
		}
	})
}

func TestTenant(t *testing.T) {
	srv := mem.NewServer()
	storetest.RunTenant(t, storetest.Cluster{Open: func(*testing.T) store.Store { return srv.Client() }})
}

func TestShared(t *testing.T) {
	storetest.RunShared(t, func(*testing.T) storetest.SharedCluster {
		srv := mem.NewServer()
		return storetest.SharedCluster{
			Open:    func(*testing.T) store.Shared { return srv.Client() },
			Abandon: func(_ *testing.T, s store.Shared) { s.(*mem.Store).Expire() },
		}
	})
}

func TestBundles(t *testing.T) {
	storetest.RunBundles(t, func(*testing.T) storetest.PartsCluster {
		c := &cluster{srv: mem.NewServer()}
		return storetest.PartsCluster{
			Open: func(t *testing.T) storetest.Parts { return c.open(t) },
			Cut:  c.each((*mem.Store).Disconnect), Heal: c.each((*mem.Store).Reconnect),
		}
	})
}
