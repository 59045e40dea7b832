package etcd_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// What transactions are checked against goes when none comes any more, and comes back with the next.
func TestForget(t *testing.T) {
	c := start(t)
	s, err := etcd.Open(etcd.Config{Endpoints: []string{c.srv.Endpoint()}, Forget: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: uuid.New()}}}); err != nil {
			t.Fatal(err)
		}
		for etcd.Holds(s) {
			time.Sleep(time.Millisecond)
		}
	}
}
