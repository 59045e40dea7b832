// Package storetest is what every store.Store must do.
package storetest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Cluster is one store, empty at first, and the links to it.
type Cluster struct {
	// Open connects a client; it is closed when the test ends.
	Open func(t *testing.T) store.Store
	// Cut makes the store unreachable for all clients, Heal undoes it. What was stored stays.
	Cut, Heal func(t *testing.T)
}

// Run checks an implementation. start makes a cluster that ends with its test.
func Run(t *testing.T, start func(t *testing.T) Cluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Cluster)
	}{
		{"RoundTrip", testRoundTrip},
		{"List", testList},
		{"Ownership", testOwnership},
		{"Refusals", testRefusals},
		{"StaleClient", testStaleClient},
		{"WatchInitial", testWatchInitial},
		{"WatchTransactions", testWatchTransactions},
		{"WatchEnds", testWatchEnds},
		{"Increments", testIncrements},
		{"Races", testRaces},
		{"CutAndHeal", testCutAndHeal},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

// patience bounds a test that would hang; no test waits for it to pass.
const patience = 30 * time.Second

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func id(n byte) uuid.UUID { return uuid.UUID{6: 0x40, 8: 0x80, 15: n} }

func bridge(n byte, name string) *model.Bridge {
	return &model.Bridge{Meta: model.Meta{ID: id(n), Name: name}, AdminStateUp: true}
}

func create(os ...model.Object) []store.Op {
	ops := make([]store.Op, len(os))
	for i, o := range os {
		ops[i] = store.Op{Verb: store.Create, Object: o}
	}
	return ops
}

func mustTxn(t *testing.T, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := s.Txn(withPatience(t), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// network has every kind and every field.
func network() []model.Object {
	return []model.Object{
		bridge(1, "net"),
		&model.Router{Meta: model.Meta{ID: id(2), Name: "gw"}, AdminStateUp: true},
		&model.Host{Meta: model.Meta{ID: id(3), Name: "host-1"}},
		&model.Port{Meta: model.Meta{ID: id(4), Name: "vm"}, BridgeID: id(1), AdminStateUp: true,
			MAC:       match.MAC{0x52, 0x54, 0, 1, 2, 3},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32"), netip.MustParsePrefix("fd00::9/128")}},
		&model.Port{Meta: model.Meta{ID: id(5), Name: "up"}, BridgeID: id(1)},
		&model.Port{Meta: model.Meta{ID: id(6), Name: "lan"}, RouterID: id(2), PeerID: id(5), AdminStateUp: true, Masquerade: true,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		&model.Route{Meta: model.Meta{ID: id(7), Name: "far"}, RouterID: id(2),
			Destination: netip.MustParsePrefix("10.9.0.0/16"), Source: netip.MustParsePrefix("10.0.0.0/24"),
			NextHop: model.NextHopPort, PortID: id(6), Gateway: netip.MustParseAddr("10.0.0.254"), Weight: 7},
		&model.Route{Meta: model.Meta{ID: id(8)}, RouterID: id(2), Destination: netip.MustParsePrefix("::/0"), NextHop: model.NextHopReject},
		&model.Binding{Meta: model.Meta{ID: id(4)}, PortID: id(4), HostID: id(3), Interface: "tap0"},
		&model.FloatingIP{Meta: model.Meta{ID: id(9), Name: "public"}, PortID: id(6),
			Address: netip.MustParseAddr("10.0.0.20"), FixedAddress: netip.MustParseAddr("10.9.0.20")},
	}
}

// diff compares objects, whichever way they hold the same address.
func diff(want, got any) string {
	return cmp.Diff(want, got,
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// state reads everything there is.
func state(t *testing.T, s store.Store) map[model.Key]model.Object {
	t.Helper()
	all := make(map[model.Key]model.Object)
	for _, k := range model.Kinds {
		os, _, err := s.List(withPatience(t), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			all[model.KeyOf(o)] = o
		}
	}
	return all
}
