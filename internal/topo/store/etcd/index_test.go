package etcd_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// by hand is somebody who writes past package etcd, as a version without bundles does.
func byHand(t *testing.T, c *cluster) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.srv.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func put(t *testing.T, c *clientv3.Client, os ...model.Object) {
	t.Helper()
	ops := []clientv3.Op{clientv3.OpPut(etcd.DefaultPrefix+".revision", "")}
	for _, o := range os {
		text, err := wire.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, clientv3.OpPut(etcd.DefaultPrefix+string(o.Kind())+"/"+o.GetMeta().ID.String(), string(text)))
	}
	if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
}

func whole(t *testing.T, s *etcd.Store, b model.Bundle) (names []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, err := s.Feed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.Want(b)
	e, ok := <-f.Events()
	if !ok {
		t.Fatal("the feed has ended")
	}
	for _, o := range e.Objects {
		names = append(names, o.GetMeta().Name)
	}
	cancel()
	for range f.Events() {
		t.Error("more")
	}
	return names
}

// A store that an earlier version has written gets its bundles from the first who writes, or who is asked to.
func TestStoreOfAnEarlierVersion(t *testing.T) {
	c := start(t)
	hand := byHand(t, c)
	br := uuid.New()
	old := []model.Object{&model.Bridge{Meta: model.Meta{ID: br, Name: "net"}}}
	for range 250 { // more than one transaction takes
		old = append(old, &model.Port{Meta: model.Meta{ID: uuid.New(), Name: "p"}, BridgeID: br})
	}
	put(t, hand, old[:100]...)
	put(t, hand, old[100:200]...)
	put(t, hand, old[200:]...)
	s := c.open(t)
	if _, err := s.Feed(t.Context()); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "start the server") {
		t.Fatalf("a feed of a store without bundles: %v", err)
	}
	if n, err := s.Reindex(t.Context()); err != nil || n != 1+250*2 {
		t.Fatalf("%d mended, %v", n, err)
	}
	if n, err := s.Reindex(t.Context()); err != nil || n != 0 {
		t.Fatalf("%d mended again, %v", n, err)
	}
	if got := whole(t, s, model.Bundle{Kind: model.BundleBridge, ID: br}); len(got) != len(old) {
		t.Errorf("the bridge has %d objects, want %d", len(got), len(old))
	}

	// The earlier version still writes: the next look mends it.
	put(t, hand, &model.Bridge{Meta: model.Meta{ID: br, Name: "renamed"}})
	if _, err := hand.Delete(t.Context(), etcd.DefaultPrefix+"port/"+old[1].GetMeta().ID.String()); err != nil {
		t.Fatal(err)
	}
	fresh := c.open(t) // has everything as it is
	if n, err := fresh.Reindex(t.Context()); err != nil || n != 1+2 {
		t.Errorf("%d mended, %v", n, err)
	}
	if got := whole(t, s, model.Bundle{Kind: model.BundleBridge, ID: br}); len(got) != len(old)-1 || got[0] != "renamed" {
		t.Errorf("%d objects, the first %s", len(got), got[0])
	}
}

// The first transaction of this version brings the bundles along.
func TestFirstTransactionIndexes(t *testing.T) {
	c := start(t)
	br := uuid.New()
	put(t, byHand(t, c), &model.Bridge{Meta: model.Meta{ID: br, Name: "net"}})
	s := c.open(t)
	if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: uuid.New(), Name: "p"}, BridgeID: br}}); err != nil {
		t.Fatal(err)
	}
	if got := whole(t, s, model.Bundle{Kind: model.BundleBridge, ID: br}); len(got) != 2 {
		t.Errorf("%v", got)
	}
}
