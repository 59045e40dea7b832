package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Cluster {
		srv := mem.NewServer()
		var clients []*mem.Store
		each := func(f func(*mem.Store)) func(*testing.T) {
			return func(*testing.T) {
				for _, c := range clients {
					f(c)
				}
			}
		}
		return storetest.Cluster{
			Open: func(t *testing.T) store.Store {
				c := srv.Client()
				clients = append(clients, c)
				t.Cleanup(func() { c.Close() })
				return c
			},
			Cut:  each((*mem.Store).Disconnect),
			Heal: each((*mem.Store).Reconnect),
		}
	})
}

func TestTenant(t *testing.T) {
	srv := mem.NewServer()
	storetest.RunTenant(t, storetest.Cluster{Open: func(*testing.T) store.Store { return srv.Client() }})
}
