package access_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n byte) uuid.UUID { return uuid.UUID{6: 0x40, 8: 0x80, 15: n} }

var (
	admin    = access.Principal{Name: "root", Role: access.Admin}
	operator = access.Principal{Name: "ops", Role: access.Operator}
	acme     = access.Principal{Name: "alice", Role: access.Tenant, Tenant: "acme"}
	beta     = access.Principal{Name: "bob", Role: access.Tenant, Tenant: "beta"}
	auditor  = access.Principal{Name: "eve", Role: access.ReadOnly}
	watcher  = access.Principal{Name: "mon", Role: access.ReadOnly, Tenant: "acme"}
	host1    = access.Principal{Name: "h1", Role: access.Agent, Host: "h1"}
	nobody   = access.Principal{}
)

// TestRoles is the table of who may do what with which kind: read, create, change, delete.
func TestRoles(t *testing.T) {
	table := map[access.Role]map[string]string{
		access.Admin:    {"network": "rcud", "port": "rcud", "host": "rcud", "binding": "rcud", "tunnel_zone": "rcud"},
		access.Operator: {"network": "rcud", "port": "rcud", "host": "rcud", "binding": "rcud", "tunnel_zone": "rcud"},
		access.Tenant:   {"network": "rcud", "port": "rcud", "host": "", "binding": "", "tunnel_zone": ""},
		access.ReadOnly: {"network": "r", "port": "r", "host": "r", "binding": "r", "tunnel_zone": "r"},
		access.Agent:    {"network": "r", "port": "rcd", "host": "rcu", "binding": "rcud", "tunnel_zone": "r"},
		"":              {"network": "", "port": "", "host": "", "binding": "", "tunnel_zone": ""},
	}
	for role, kinds := range table {
		for _, k := range model.Kinds {
			want, special := kinds[string(k)]
			if !special {
				want = kinds["network"]
			}
			got := ""
			for letter, v := range map[string]access.Verb{"r": access.Read, "c": access.Create, "u": access.Change, "d": access.Delete} {
				if role.May(v, k) {
					got += letter
				}
			}
			if sorted(got) != sorted(want) {
				t.Errorf("%s may %q a %s, want %q", role, got, k, want)
			}
		}
	}
}

func sorted(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// TestStoreHoldsToTheTable: what a role may not, the store refuses for every kind and verb, and nothing else.
func TestStoreHoldsToTheTable(t *testing.T) {
	verbs := map[store.Verb]access.Verb{store.Create: access.Create, store.Replace: access.Change, store.Delete: access.Delete}
	for _, p := range []access.Principal{admin, operator, acme, auditor, watcher, nobody} {
		var told []access.Refusal
		g := access.Guard(mem.New(), func(_ context.Context, r access.Refusal) { told = append(told, r) })
		for _, k := range model.Kinds {
			for v, verb := range verbs {
				o := model.New(k)
				o.GetMeta().ID = id(1)
				told = nil
				_, err := g.Txn(access.With(t.Context(), p), store.Op{Verb: v, Object: o})
				if denied := errors.Is(err, model.ErrDenied); denied == p.Role.May(verb, k) {
					t.Errorf("%s, %s %s: %v", p, verb, k, err)
				} else if denied && (len(told) != 1 || told[0].Who != p || !strings.Contains(err.Error(), string(k))) {
					t.Errorf("%s, %s %s: told %v, error %v", p, verb, k, told, err)
				}
			}
		}
	}
}

// network is what two tenants and the operators have.
func network(t *testing.T) (*access.Guarded, *[]access.Refusal) {
	t.Helper()
	told := new([]access.Refusal)
	g := access.Guard(mem.New(), func(_ context.Context, r access.Refusal) { *told = append(*told, r) })
	as := func(p access.Principal, objects ...model.Object) {
		t.Helper()
		ops := make([]store.Op, len(objects))
		for i, o := range objects {
			ops[i] = store.Op{Verb: store.Create, Object: o}
		}
		if _, err := g.Txn(access.With(t.Context(), p), ops...); err != nil {
			t.Fatal(err)
		}
	}
	as(operator, &model.Bridge{Meta: model.Meta{ID: id(1), Name: "ext", Shared: true}}, &model.Bridge{Meta: model.Meta{ID: id(2), Name: "private"}},
		&model.Host{Meta: model.Meta{ID: id(51), Name: "h1"}}, &model.Host{Meta: model.Meta{ID: id(52), Name: "h2"}})
	as(acme, &model.Bridge{Meta: model.Meta{ID: id(11), Name: "blue"}}, &model.Port{Meta: model.Meta{ID: id(12), Name: "vm"}, BridgeID: id(11)},
		&model.Port{Meta: model.Meta{ID: id(13), Name: "vm2"}, BridgeID: id(11)})
	as(beta, &model.Bridge{Meta: model.Meta{ID: id(21), Name: "blue"}})
	as(operator, &model.Binding{Meta: model.Meta{ID: id(12)}, PortID: id(12), HostID: id(51), Interface: "tap0"})
	as(operator, &model.Binding{Meta: model.Meta{ID: id(13)}, PortID: id(13), HostID: id(52), Interface: "tap0"})
	return g, told
}

func TestWhoSeesWhat(t *testing.T) {
	g, told := network(t)
	for p, want := range map[access.Principal][]byte{
		admin: {1, 2, 11, 21}, operator: {1, 2, 11, 21}, auditor: {1, 2, 11, 21}, host1: {1, 2, 11, 21},
		acme: {1, 11}, watcher: {1, 11}, beta: {1, 21}, nobody: nil,
	} {
		ctx := access.With(t.Context(), p)
		list, _, err := g.List(ctx, model.KindBridge)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, o := range list {
			got = append(got, o.GetMeta().ID[15])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %v, want %v", p, got, want)
		}
		for _, n := range []byte{1, 2, 11, 21} {
			*told = nil
			_, err := g.Get(ctx, model.KindBridge, id(n))
			if sees := slices.Contains(want, n); sees != (err == nil) || len(*told) == 0 != sees {
				t.Errorf("%s gets %d: %v, told %v", p, n, err, *told)
			}
			_, none := g.Get(ctx, model.KindBridge, id(200))
			if err != nil && strings.ReplaceAll(err.Error(), id(n).String(), "") != strings.ReplaceAll(none.Error(), id(200).String(), "") {
				t.Errorf("%s can tell that %d exists: %v and %v", p, n, err, none)
			}
		}
		operators := p.Tenant == "" && p.Role != ""
		if hosts, _, _ := g.List(ctx, model.KindHost); (len(hosts) == 2) != operators {
			t.Errorf("%s sees %d hosts", p, len(hosts))
		}
	}
}

func TestAgentIsItsHost(t *testing.T) {
	bind := func(port, host byte) *model.Binding {
		return &model.Binding{Meta: model.Meta{ID: id(port)}, PortID: id(port), HostID: id(host), Interface: "tap9"}
	}
	for name, c := range map[string]struct {
		op store.Op
		ok bool
	}{
		"a binding to itself":             {store.Op{Verb: store.Create, Object: bind(14, 51)}, true},
		"a binding to another":            {store.Op{Verb: store.Create, Object: bind(14, 52)}, false},
		"its own binding changed":         {store.Op{Verb: store.Replace, Object: bind(12, 51)}, true},
		"its own binding given away":      {store.Op{Verb: store.Replace, Object: bind(12, 52)}, false},
		"another's binding taken":         {store.Op{Verb: store.Replace, Object: bind(13, 51)}, false},
		"its own binding removed":         {store.Op{Verb: store.Delete, Object: bind(12, 0)}, true},
		"another's binding removed":       {store.Op{Verb: store.Delete, Object: bind(13, 51)}, false},
		"itself changed":                  {store.Op{Verb: store.Replace, Object: &model.Host{Meta: model.Meta{ID: id(51), Name: "h1"}}}, true},
		"itself renamed":                  {store.Op{Verb: store.Replace, Object: &model.Host{Meta: model.Meta{ID: id(51), Name: "h9"}}}, false},
		"another in its name":             {store.Op{Verb: store.Replace, Object: &model.Host{Meta: model.Meta{ID: id(52), Name: "h1"}}}, false},
		"another host made":               {store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: id(53), Name: "h3"}}}, false},
		"a host deleted":                  {store.Op{Verb: store.Delete, Object: &model.Host{Meta: model.Meta{ID: id(51)}}}, false},
		"a container's port":              {store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: id(15)}, BridgeID: id(11)}}, true},
		"a port that links":               {store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: id(15)}, BridgeID: id(11), PeerID: id(14)}}, false},
		"a port bound elsewhere, removed": {store.Op{Verb: store.Delete, Object: &model.Port{Meta: model.Meta{ID: id(13)}}}, false},
		"a port bound nowhere, removed":   {store.Op{Verb: store.Delete, Object: &model.Port{Meta: model.Meta{ID: id(14)}}}, false},
		"a bridge":                        {store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: id(99)}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g, told := network(t)
			if _, err := g.Txn(access.With(t.Context(), acme), store.Op{Verb: store.Create, Object: &model.Port{Meta: model.Meta{ID: id(14), Name: "vm3"}, BridgeID: id(11)}}); err != nil {
				t.Fatal(err)
			}
			_, err := g.Txn(access.With(t.Context(), host1), c.op)
			if c.ok != (err == nil) || !c.ok && (!errors.Is(err, model.ErrDenied) || len(*told) != 1) {
				t.Errorf("%v, told %v", err, *told)
			}
		})
	}
}

// TestWatchOfATenant: only its own and shared, whole transactions, and what is no longer shared goes away.
func TestWatchOfATenant(t *testing.T) {
	g, _ := network(t)
	ctx, cancel := context.WithCancel(access.With(t.Context(), beta))
	defer cancel()
	events, err := g.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next := func() store.Event { t.Helper(); return <-events }
	var first []byte
	for ev := next(); !ev.Synced; ev = next() {
		first = append(first, ev.Object.GetMeta().ID[15])
	}
	if slices.Sort(first); !slices.Equal(first, []byte{1, 21}) {
		t.Errorf("at first %v", first)
	}
	txn := func(p access.Principal, ops ...store.Op) {
		t.Helper()
		if _, err := g.Txn(access.With(t.Context(), p), ops...); err != nil {
			t.Fatal(err)
		}
	}
	bridge := func(n byte, shared bool) *model.Bridge {
		return &model.Bridge{Meta: model.Meta{ID: id(n), Shared: shared}}
	}
	txn(acme, store.Op{Verb: store.Create, Object: bridge(12, false)}) // not seen
	txn(operator, store.Op{Verb: store.Create, Object: bridge(3, true)}, store.Op{Verb: store.Create, Object: bridge(4, false)})
	if ev := next(); ev.Object.GetMeta().ID != id(3) || !ev.Last {
		t.Errorf("%+v %+v: the rest of the transaction is not theirs, so this is the last", ev, ev.Object)
	}
	txn(operator, store.Op{Verb: store.Replace, Object: bridge(3, false)})
	if ev := next(); !ev.Deleted || ev.Object.GetMeta().ID != id(3) {
		t.Errorf("no longer shared: %+v", ev)
	}
	txn(operator, store.Op{Verb: store.Delete, Object: bridge(3, false)}) // not seen
	txn(beta, store.Op{Verb: store.Delete, Object: bridge(21, false)})
	if ev := next(); !ev.Deleted || ev.Object.GetMeta().ID != id(21) {
		t.Errorf("own: %+v", ev)
	}
	cancel()
	for range events {
	}
}
