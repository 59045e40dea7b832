package storetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func testRoundTrip(t *testing.T, c Cluster) {
	s, other := c.Open(t), c.Open(t)
	objects := network()
	for _, o := range objects {
		if m := o.GetMeta(); !slices.Contains(model.OperatorKinds, o.Kind()) {
			m.Tenant, m.Shared = "acme", true
		}
	}
	rev := mustTxn(t, s, create(objects...)...)
	if rev <= 0 {
		t.Errorf("revision %d", rev)
	}
	if p := objects[4].(*model.Port); p.PeerID != id(6) || p.Revision != rev {
		t.Errorf("the caller's object does not say what is stored: %+v", p)
	}
	for _, want := range objects {
		for _, from := range []store.Store{s, other} {
			got, err := from.Get(withPatience(t), want.Kind(), want.GetMeta().ID)
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(want, got); d != "" {
				t.Errorf("%s came back changed (-want +got):\n%s", want.Kind(), d)
			}
		}
	}
	changed := bridge(1, "renamed")
	changed.AdminStateUp = false
	rev2 := mustTxn(t, other, store.Op{Verb: store.Replace, Object: changed, IfRevision: rev})
	got, err := s.Get(withPatience(t), model.KindBridge, id(1))
	if err != nil || got.GetMeta().Name != "renamed" || got.GetMeta().Revision != rev2 || rev2 <= rev {
		t.Errorf("after Replace at %d then %d: %+v, %v", rev, rev2, got, err)
	}
	mustTxn(t, s, store.Op{Verb: store.Delete, Object: &model.Route{Meta: model.Meta{ID: id(8)}}})
	if _, err := other.Get(withPatience(t), model.KindRoute, id(8)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after Delete: %v", err)
	}
}

func testList(t *testing.T, c Cluster) {
	s := c.Open(t)
	if os, _, err := s.List(withPatience(t), model.KindBridge); err != nil || len(os) != 0 {
		t.Errorf("an empty store lists %v, %v", os, err)
	}
	rev := mustTxn(t, s, create(bridge(4, "b"), bridge(3, ""), bridge(2, "c"), bridge(5, "a"), bridge(1, ""))...)
	os, at, err := s.List(withPatience(t), model.KindBridge)
	if err != nil || at < rev {
		t.Fatalf("listed at %d after a transaction at %d, %v", at, rev, err)
	}
	var got []byte
	for _, o := range os {
		got = append(got, o.GetMeta().ID[15])
	}
	if want := []byte{1, 3, 5, 4, 2}; string(got) != string(want) { // by name, then id
		t.Errorf("listed in order %v, want %v", got, want)
	}
}

// testOwnership changes what was put in and what was handed out.
func testOwnership(t *testing.T, c Cluster) {
	s := c.Open(t)
	events := follow(t, s)
	in := network()
	mustTxn(t, s, create(in...)...)
	want := state(t, s)
	for _, o := range in {
		spoil(o)
	}
	for _, o := range state(t, s) {
		spoil(o)
	}
	for range in {
		spoil(events.next(t).Object)
	}
	if d := diff(want, state(t, s)); d != "" {
		t.Errorf("stored objects are shared with callers (-want +got):\n%s", d)
	}
}

func spoil(o model.Object) {
	o.GetMeta().Name = "spoilt"
	if s, ok := o.(*model.Subnet); ok && len(s.ExtraOptions) > 0 {
		s.ExtraOptions[0].Value, s.DNSServers[0], s.HostRoutes[0] = "spoilt", netip.Addr{}, model.HostRoute{}
	}
	if p, ok := o.(*model.Port); ok && len(p.Addresses) > 0 {
		p.Addresses[0] = p.Addresses[len(p.Addresses)-1]
	}
}

func testRefusals(t *testing.T, c Cluster) {
	s := c.Open(t)
	rev := mustTxn(t, s, create(network()...)...)
	before := state(t, s)
	for _, x := range []struct {
		name string
		op   store.Op
		want error
	}{
		{"id exists", store.Op{Verb: store.Create, Object: bridge(1, "new")}, store.ErrExists},
		{"name exists", store.Op{Verb: store.Create, Object: bridge(99, "net")}, store.ErrExists},
		{"replace of nothing", store.Op{Verb: store.Replace, Object: bridge(99, "new")}, store.ErrNotFound},
		{"delete of nothing", store.Op{Verb: store.Delete, Object: bridge(99, "")}, store.ErrNotFound},
		{"another revision", store.Op{Verb: store.Replace, Object: bridge(1, "net"), IfRevision: rev + 1}, store.ErrConflict},
		{"delete at another revision", store.Op{Verb: store.Delete, Object: bridge(1, ""), IfRevision: rev + 1}, store.ErrConflict},
		{"referred to", store.Op{Verb: store.Delete, Object: bridge(1, "")}, store.ErrReferenced},
		{"dangling", store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: id(99)}, BridgeID: id(98)}}, store.ErrInvalid},
		{"no id", store.Op{Verb: store.Create, Object: &model.Host{}}, store.ErrInvalid},
	} {
		_, err := s.Txn(withPatience(t), store.Op{Verb: store.Create, Object: bridge(50, "first")}, x.op)
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
	}
	var field *model.FieldError
	_, err := s.Txn(withPatience(t), create(&model.Port{Meta: model.Meta{ID: id(99), Name: "p"}, BridgeID: id(98)})...)
	if !errors.As(err, &field) || field.Field != "bridge" || field.Name != "p" {
		t.Errorf("the error does not name the field: %v", err)
	}
	if d := diff(before, state(t, s)); d != "" {
		t.Errorf("refused transactions left traces (-want +got):\n%s", d)
	}
	if _, err := s.Get(withPatience(t), model.KindHost, uuid.Nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Txn(gone, create(bridge(60, "late"))...); !errors.Is(err, context.Canceled) {
		t.Errorf("Txn with an ended context: %v", err)
	}
}

// testStaleClient judges by the present state, not by what a client has seen last.
func testStaleClient(t *testing.T, c Cluster) {
	a, b := c.Open(t), c.Open(t)
	mustTxn(t, a, create(bridge(1, "one"))...)
	mustTxn(t, b, create(bridge(2, "two"))...)
	mustTxn(t, a, store.Op{Verb: store.Delete, Object: bridge(2, "")})
	// b has seen neither: refusals and acceptances that rest on its own last state are wrong.
	mustTxn(t, b, create(bridge(3, "two"))...)
	if _, err := a.Txn(withPatience(t), create(bridge(4, "two"))...); !errors.Is(err, store.ErrExists) {
		t.Errorf("a takes a name that b has given: %v", err)
	}
	mustTxn(t, b, store.Op{Verb: store.Delete, Object: bridge(3, "")})
	mustTxn(t, a, create(bridge(4, "two"))...)
	if _, err := b.Txn(withPatience(t), store.Op{Verb: store.Delete, Object: bridge(3, "")}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("b deletes twice: %v", err)
	}
}

// Who follows a transaction in which a name changes hands, new owner first, knows whose it is then.
func testChangeOfHands(t *testing.T, c Cluster) {
	writer, follower := c.Open(t), c.Open(t)
	mustTxn(t, follower, create(bridge(1, "x"))...)
	mustTxn(t, writer, store.Op{Verb: store.Create, Object: bridge(2, "x")}, store.Op{Verb: store.Replace, Object: bridge(1, "y")})
	if _, err := follower.Txn(withPatience(t), create(bridge(3, "x"))...); !errors.Is(err, store.ErrExists) {
		t.Errorf("a second bridge of the name: %v, want %v", err, store.ErrExists)
	}
	mustTxn(t, writer, store.Op{Verb: store.Delete, Object: bridge(2, "x")})
	mustTxn(t, follower, create(bridge(3, "x"))...)
}

// RunTenant checks a store that its caller may use on behalf of any tenant: what is done on behalf of a tenant is its own, and reaches nobody else's.
func RunTenant(t *testing.T, c Cluster) {
	s, other := c.Open(t), c.Open(t)
	mustTxn(t, s, store.Op{Verb: store.Create, Object: bridge(1, "blue"), Tenant: "acme"}, store.Op{Verb: store.Create, Object: bridge(2, "green"), Tenant: "acme"})
	mustTxn(t, other, store.Op{Verb: store.Create, Object: bridge(3, "blue"), Tenant: "beta"})
	for _, op := range []store.Op{
		{Verb: store.Replace, Object: bridge(1, "taken"), Tenant: "beta"},
		{Verb: store.Delete, Object: bridge(2, ""), Tenant: "beta"},
	} {
		if _, err := other.Txn(withPatience(t), op); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("verb %d on another's: %v", op.Verb, err)
		}
	}
	if o, err := other.Get(withPatience(t), model.KindBridge, id(1)); err != nil || o.GetMeta().Tenant != "acme" || o.GetMeta().Name != "blue" {
		t.Errorf("%+v, %v", o, err)
	}
}

// testLarge makes in one transaction what a big document brings: some megabytes.
func testLarge(t *testing.T, c Cluster) {
	const groups = 4
	s := c.Open(t)
	var os []model.Object
	for n := range byte(groups) {
		g := &model.AddressGroup{Meta: model.Meta{ID: id(n + 1)}}
		for i := range model.MaxGroup {
			g.Addresses = append(g.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(i >> 8), byte(i)}), 128))
		}
		os = append(os, g)
	}
	mustTxn(t, s, create(os...)...)
	list, _, err := c.Open(t).List(withPatience(t), model.KindAddressGroup)
	if err != nil || len(list) != groups || len(list[0].(*model.AddressGroup).Addresses) != model.MaxGroup {
		t.Errorf("%d groups, want %d: %v", len(list), groups, err)
	}
}
