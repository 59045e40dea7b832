package etcd_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// Who registers a host, binds, moves and unbinds ports reads what concerns these and does not come to hold all there is. Bundles are kept as ever.
func TestBindingsAreJudgedByAPart(t *testing.T) {
	c := start(t)
	cloud := c.open(t)
	br, port, other, h1, h2 := uuid.New(), uuid.New(), uuid.New(), uuid.New(), uuid.New()
	binding := func(port, host uuid.UUID, iface string) *model.Binding {
		return &model.Binding{Meta: model.Meta{ID: port}, PortID: port, HostID: host, Interface: iface}
	}
	op := func(v store.Verb, o model.Object) store.Op { return store.Op{Verb: v, Object: o} }
	if _, err := cloud.Txn(t.Context(), op(store.Create, &model.Bridge{Meta: model.Meta{ID: br}}),
		op(store.Create, &model.Port{Meta: model.Meta{ID: port}, BridgeID: br}), op(store.Create, &model.Port{Meta: model.Meta{ID: other}, BridgeID: br})); err != nil {
		t.Fatal(err)
	}
	agent := c.open(t)
	moved := binding(port, h2, "tap0")
	for _, x := range []struct {
		op      store.Op
		refusal string
	}{
		{op: op(store.Create, &model.Host{Meta: model.Meta{ID: h1, Name: "one"}})},
		{op(store.Create, &model.Host{Meta: model.Meta{ID: h2, Name: "one"}}), "has this name"},
		{op: op(store.Create, &model.Host{Meta: model.Meta{ID: h2, Name: "two"}})},
		{op: op(store.Create, binding(port, h1, "tap0"))},
		{op(store.Create, binding(port, h1, "tap0")), "exists"},
		{op(store.Create, binding(other, h1, "tap0")), "tap0 is already taken on this host"},
		{op(store.Create, binding(uuid.New(), h1, "tap1")), "no port"},
		{op: op(store.Create, binding(other, h1, "tap1"))},
		{op: op(store.Replace, moved)},
		{op: op(store.Replace, moved)}, // as the loop makes it: released
		{op: op(store.Delete, binding(other, h1, ""))},
	} {
		if b, ok := x.op.Object.(*model.Binding); ok && b == moved && b.Revision != 0 {
			if b.FromID != h1 {
				t.Errorf("of a port that moves, %s is to let go", b.FromID)
			}
			x.op.Object, x.op.IfRevision = b.Released(), b.Revision
		}
		_, err := agent.Txn(t.Context(), x.op)
		switch {
		case x.refusal == "" && err != nil:
			t.Errorf("%+v: %v", x.op.Object, err)
		case x.refusal != "" && (err == nil || !strings.Contains(err.Error(), x.refusal)):
			t.Errorf("%+v: %v, want %q", x.op.Object, err, x.refusal)
		}
		if etcd.Holds(agent) {
			t.Fatalf("%+v: all there is has been read", x.op.Object)
		}
	}
	if got, err := cloud.Get(t.Context(), model.KindBinding, port); err != nil || got.(*model.Binding).Owner() != h2 || got.(*model.Binding).FromID != uuid.Nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := cloud.Get(t.Context(), model.KindBinding, other); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if n, err := cloud.Reindex(t.Context()); n != 0 || err != nil {
		t.Errorf("%d entries of bundles were wrong, %v", n, err)
	}
}

// Of several who want an interface one gets it, also when none of them holds more than a part.
func TestPartsRace(t *testing.T) {
	c := start(t)
	const hosts = 4
	cloud, br, h := c.open(t), uuid.New(), uuid.New()
	ops := []store.Op{{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: br}}}, {Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: h, Name: "h"}}}}
	var ports [hosts]uuid.UUID
	for i := range ports {
		ports[i] = uuid.New()
		ops = append(ops, store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: ports[i]}, BridgeID: br}})
	}
	if _, err := cloud.Txn(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	var errs [hosts]error
	for i, p := range ports {
		s := c.open(t)
		wait.Go(func() {
			_, errs[i] = s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Binding{Meta: model.Meta{ID: p}, PortID: p, HostID: h, Interface: "tap0"}})
		})
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrInvalid) {
			t.Error(err)
		}
	}
	if bs, _, err := cloud.List(t.Context(), model.KindBinding); won != 1 || len(bs) != 1 || err != nil {
		t.Errorf("%d have bound it, %d bindings are stored, %v", won, len(bs), err)
	}
}
