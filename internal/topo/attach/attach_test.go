package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func id(n byte) uuid.UUID { return uuid.UUID{n, 15: n} }

var (
	h1, h2             = id(1), id(2)
	bridge             = id(3)
	portA, portB, gone = id(4), id(5), id(9)
	nothing            = &view.Snapshot{}
)

func network(t *testing.T, more ...model.Object) store.Store {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	meta := func(id uuid.UUID, name string) model.Meta { return model.Meta{ID: id, Name: name} }
	var ops []store.Op
	for _, o := range append([]model.Object{
		&model.Host{Meta: meta(h1, "h1")}, &model.Host{Meta: meta(h2, "h2")},
		&model.Bridge{Meta: meta(bridge, "net"), AdminStateUp: true},
		&model.Port{Meta: meta(portA, "a"), BridgeID: bridge, AdminStateUp: true},
		&model.Port{Meta: meta(portB, "b"), BridgeID: bridge, AdminStateUp: true},
		&model.Subnet{Meta: meta(id(6), "net4"), BridgeID: bridge, CIDR: netip.MustParsePrefix("10.0.0.0/29"), Gateway: netip.MustParseAddr("10.0.0.1")},
	}, more...) {
		ops = append(ops, store.Op{Verb: store.Create, Object: o})
	}
	if _, err := s.Txn(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	return s
}

// bindings is the state as text: PORT=HOST/INTERFACE.
func bindings(t *testing.T, s store.Store) string {
	t.Helper()
	all, _, err := s.List(t.Context(), model.KindBinding)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, o := range all {
		b := o.(*model.Binding)
		word := fmt.Sprintf("%d=%d/%s", b.PortID[0], b.HostID[0], b.Interface)
		if b.FromID != uuid.Nil {
			word += fmt.Sprintf("<%d", b.FromID[0])
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestBind(t *testing.T) {
	s := network(t)
	for _, c := range []struct {
		name       string
		host, port uuid.UUID
		iface      string
		err        error
		want       string
	}{
		{"bound", h1, portA, "tap0", nil, "4=1/tap0"},
		{"again", h1, portA, "tap0", nil, "4=1/tap0"},
		{"to another interface", h1, portA, "tap1", nil, "4=1/tap1"},
		{"no such port", h1, gone, "tap9", store.ErrNotFound, "4=1/tap1"},
		{"no interface name", h1, portB, "a/b", store.ErrInvalid, "4=1/tap1"},
		{"the same interface on another host", h2, portB, "tap1", nil, "4=1/tap1 5=2/tap1"},
		{"another host's", h2, portA, "tap2", nil, "4=2/tap2<1 5=2/tap1"},
		{"back again before it has let go", h1, portA, "tap1", nil, "4=1/tap1 5=2/tap1"},
	} {
		if err := Bind(t.Context(), s, c.host, c.port, c.iface); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if got := bindings(t, s); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A VM has died with its host, and its tap's name is another VM's now.
func TestBindInterfaceOfTheDead(t *testing.T) {
	s := network(t)
	for _, p := range []uuid.UUID{portA, portB} {
		if err := Bind(t.Context(), s, h1, p, "vnet0"); err != nil {
			t.Fatal(err)
		}
	}
	if got := bindings(t, s); got != "5=1/vnet0" {
		t.Error(got)
	}
}

func TestUnbind(t *testing.T) {
	s := network(t)
	if err := Bind(t.Context(), s, h1, portA, "tap0"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		host, port uuid.UUID
		done       bool
		want       string
	}{
		{"another host's stays", h2, portA, false, "4=1/tap0"},
		{"no such port", h1, gone, false, "4=1/tap0"},
		{"never bound", h1, portB, false, "4=1/tap0"},
		{"unbound", h1, portA, true, ""},
		{"again", h1, portA, false, ""},
	} {
		done, err := Unbind(t.Context(), s, c.host, c.port)
		if err != nil || done != c.done || bindings(t, s) != c.want {
			t.Errorf("%s: %v, %v, left %q, want %v, %q", c.name, done, err, bindings(t, s), c.done, c.want)
		}
	}
}

// Who takes a port from a dead host does so only while that is dead in the store: one that is back lets go itself.
func TestTaken(t *testing.T) {
	s := network(t).(*mem.Store)
	for _, host := range []uuid.UUID{h1, h2} {
		if err := Bind(t.Context(), s, host, portA, "tap0"); err != nil {
			t.Fatal(err)
		}
	}
	session, err := s.Join(t.Context(), live.TTL)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Put(t.Context(), live.Path(h1), nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		port, from uuid.UUID
		before     func(context.Context) error
		done       bool
		want       string
	}{
		{"it is back", portA, h1, nil, false, "4=2/tap0<1"},
		{"it is dead", portA, h1, session.Close, true, "4=2/tap0"},
		{"again", portA, h1, nil, false, "4=2/tap0"},
		{"no such port", gone, h1, nil, false, "4=2/tap0"},
	} {
		if c.before != nil {
			if err := c.before(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		revision, err := Taken(t.Context(), s, s, c.port, c.from)
		if done := revision != 0; err != nil || done != c.done || bindings(t, s) != c.want {
			t.Errorf("%s: %v, %v, left %q, want %v, %q", c.name, revision, err, bindings(t, s), c.done, c.want)
		}
	}
}

func request(n int) Request {
	return Request{Name: fmt.Sprintf("cni:net:c%d:eth0", n), Bridge: "net", Interface: fmt.Sprintf("veth%d", n), PortSecurity: true}
}

func TestAdd(t *testing.T) {
	s := network(t)
	c, err := Add(t.Context(), s, nothing, h1, request(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Port.Addresses) != 1 || c.Port.MAC == (match.MAC{}) || !c.Port.PortSecurity || c.Subnets[0].Name != "net4" {
		t.Errorf("%+v", c.Port)
	}
	again, err := Add(t.Context(), s, nothing, h1, request(1))
	if err != nil || again.Port.ID != c.Port.ID || again.Port.Addresses[0] != c.Port.Addresses[0] {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	if _, err := Add(t.Context(), s, nothing, h2, request(1)); !errors.Is(err, ErrElsewhere) {
		t.Errorf("on another host: %v", err)
	}
	for range 2 {
		if err := Remove(t.Context(), s, nothing, h1, request(1).Name); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err := s.Get(t.Context(), model.KindPort, c.Port.ID); !errors.Is(err, store.ErrNotFound) || bindings(t, s) != "" {
		t.Errorf("left: %v, %q", err, bindings(t, s))
	}
}

// Hosts that choose at once, each knowing nothing of the others, get addresses of their own; of a subnet of eight, five are to be had.
func TestAddAtOnce(t *testing.T) {
	s := network(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got, full := map[netip.Prefix]bool{}, 0
	for i := range 8 {
		wg.Go(func() {
			c, err := Add(t.Context(), s, nothing, []uuid.UUID{h1, h2}[i%2], request(i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				full++
				if !strings.Contains(err.Error(), "subnet net4 (10.0.0.0/29): no address is free") {
					t.Error(err)
				}
				return
			}
			got[c.Port.Addresses[0]] = true
		})
	}
	wg.Wait()
	if len(got) != 5 || full != 3 || got[netip.MustParsePrefix("10.0.0.1/32")] || got[netip.MustParsePrefix("10.0.0.0/32")] || got[netip.MustParsePrefix("10.0.0.7/32")] {
		t.Errorf("%v, refused %d", got, full)
	}
}

// A port that was made beforehand keeps what it has; what somebody refers to is not deleted.
func TestAddToWhatIsThere(t *testing.T) {
	want := netip.MustParsePrefix("10.0.0.6/32")
	own := &model.Port{Meta: model.Meta{ID: id(20), Name: request(1).Name}, BridgeID: bridge, AdminStateUp: true,
		MAC: match.MAC{2, 0, 0, 0, 0, 9}, Addresses: []netip.Prefix{want}}
	s := network(t, own, &model.Chain{Meta: model.Meta{ID: id(21)}},
		&model.Rule{Meta: model.Meta{ID: id(22)}, ChainID: id(21), Position: 1, Action: model.RuleDrop, Match: model.Condition{InPorts: []uuid.UUID{id(20)}}})
	snap := &view.Snapshot{Ports: map[uuid.UUID]*view.Port{id(20): {ID: id(20), Name: own.Name}}}
	c, err := Add(t.Context(), s, snap, h1, request(1))
	if err != nil || c.Port.ID != id(20) || c.Port.Addresses[0] != want {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := Remove(t.Context(), s, snap, h1, own.Name); err != nil || bindings(t, s) != "" {
		t.Errorf("%v, %q", err, bindings(t, s))
	}
	if _, err := s.Get(t.Context(), model.KindPort, id(20)); err != nil {
		t.Error(err)
	}
}

func TestAddRefuses(t *testing.T) {
	s := network(t, &model.Bridge{Meta: model.Meta{ID: id(30), Name: "bare"}})
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Bridge: "nowhere"}, `bridge "nowhere": not found`},
		{Request{Bridge: "bare"}, "bridge bare has no subnet"},
		{Request{Bridge: "net", Subnets: []string{"net5"}}, `subnet "net5": not found`},
		{Request{Bridge: "bare", Subnets: []string{"net4"}}, "subnet net4 is not of bridge bare"},
	} {
		c.r.Name, c.r.Interface = "x", "veth0"
		if _, err := Add(t.Context(), s, nothing, h1, c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.r, err, c.want)
		}
	}
}

func TestFree(t *testing.T) {
	p := &model.Port{Meta: model.Meta{Name: "x"}, MAC: match.MAC{2, 1, 2, 3, 4, 5}}
	used := netip.MustParseAddr("fd00::1:2ff:fe03:405")
	for _, c := range []struct {
		cidr  string
		taken func(netip.Addr) bool
		ok    func(netip.Addr) bool
	}{
		{"fd00::/64", func(netip.Addr) bool { return false }, func(a netip.Addr) bool { return a == used }},
		{"fd00::/64", func(a netip.Addr) bool { return a == used }, func(a netip.Addr) bool { return a != used }},
		{"fd00::/120", func(a netip.Addr) bool { return a.As16()[15] != 7 }, func(a netip.Addr) bool { return a == netip.MustParseAddr("fd00::7") }},
		{"10.0.0.0/31", func(a netip.Addr) bool { return a.As4()[3] != 0 }, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.0") }},
		{"10.0.255.0/23", func(a netip.Addr) bool { return a != netip.MustParseAddr("10.0.255.255") }, func(a netip.Addr) bool { return false }},
		{"10.0.0.0/8", func(netip.Addr) bool { return true }, nil},
	} {
		a, err := free(&model.Subnet{CIDR: netip.MustParsePrefix(c.cidr)}, p, c.taken)
		switch {
		case err != nil:
			if !errors.Is(err, store.ErrConflict) || c.ok != nil && c.ok(netip.Addr{}) {
				t.Errorf("%s: %v", c.cidr, err)
			}
		case c.ok == nil || !c.ok(a) || !netip.MustParsePrefix(c.cidr).Contains(a):
			t.Errorf("%s: %s", c.cidr, a)
		}
	}
}
