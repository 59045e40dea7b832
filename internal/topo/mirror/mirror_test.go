package mirror

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n byte) uuid.UUID { return uuid.UUID{6: 0x40, 8: 0x80, 15: n} }

func pfx(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func create(os ...model.Object) []store.Op {
	var ops []store.Op
	for _, o := range os {
		ops = append(ops, store.Op{Verb: store.Create, Object: o})
	}
	return ops
}

func replace(o model.Object) store.Op { return store.Op{Verb: store.Replace, Object: o} }
func remove(o model.Object) store.Op  { return store.Op{Verb: store.Delete, Object: o} }

// Ids of the sample network.
var (
	br, rt                   = id(1), id(2)
	here, there              = id(3), id(4)
	vm1, vm2, spare, up, lan = id(11), id(12), id(13), id(14), id(15)
	wan, def                 = id(16), id(21)
	vmMAC                    = match.MAC{0x52, 0x54, 0, 0, 0, 1}
	gateway                  = netip.MustParseAddr("192.0.2.1")
)

func vm1Port() *model.Port {
	return &model.Port{Meta: model.Meta{ID: vm1, Name: "vm1"}, BridgeID: br, AdminStateUp: true, MAC: vmMAC, Addresses: pfx("10.0.0.11/32", "fd00::11/128")}
}

func wanPort() *model.Port {
	return &model.Port{Meta: model.Meta{ID: wan}, RouterID: rt, AdminStateUp: true, Addresses: pfx("192.0.2.2/30")}
}

func binding(p, host uuid.UUID, iface string) *model.Binding {
	return &model.Binding{Meta: model.Meta{ID: p}, PortID: p, HostID: host, Interface: iface}
}

func sample() []model.Object {
	return []model.Object{
		&model.Bridge{Meta: model.Meta{ID: br, Name: "net"}, AdminStateUp: true},
		&model.Router{Meta: model.Meta{ID: rt, Name: "gw"}, AdminStateUp: true},
		&model.Host{Meta: model.Meta{ID: here, Name: "here"}},
		&model.Host{Meta: model.Meta{ID: there, Name: "there"}},
		vm1Port(),
		&model.Port{Meta: model.Meta{ID: vm2}, BridgeID: br, AdminStateUp: true},
		&model.Port{Meta: model.Meta{ID: spare}, BridgeID: br, AdminStateUp: true},
		&model.Port{Meta: model.Meta{ID: up}, BridgeID: br, AdminStateUp: true},
		&model.Port{Meta: model.Meta{ID: lan}, RouterID: rt, PeerID: up, AdminStateUp: true, Addresses: pfx("10.0.0.1/24")},
		wanPort(),
		&model.Route{Meta: model.Meta{ID: def}, RouterID: rt, Destination: pfx("0.0.0.0/0")[0], NextHop: model.NextHopPort, PortID: wan, Gateway: gateway},
		binding(vm1, here, "tap1"), binding(vm2, there, "tap2"), binding(wan, here, "eth1"),
	}
}

// rig is a mirror that follows a store in memory.
type rig struct {
	*Mirror
	server  *mem.Server
	writer  *mem.Store
	link    *mem.Store // the mirror's
	changes chan Change
}

func start(t *testing.T) *rig {
	srv := mem.NewServer()
	r := &rig{Mirror: New(here), server: srv, writer: srv.Client(), link: srv.Client(), changes: make(chan Change, 100)}
	r.Subscribe(func(c Change) {
		if r.Snapshot() != c.Snapshot {
			t.Error("tags are delivered before the snapshot is there")
		}
		r.changes <- c
	})
	r.txn(t, create(sample()...)...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx, r.link) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run ended with %v", err)
		}
	})
	<-r.Synced()
	return r
}

func (r *rig) txn(t *testing.T, ops ...store.Op) int64 {
	t.Helper()
	rev, err := r.writer.Txn(context.Background(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func (r *rig) next(t *testing.T) Change {
	t.Helper()
	select {
	case c := <-r.changes:
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no change comes")
		panic("unreachable")
	}
}

func TestSnapshot(t *testing.T) {
	s := start(t).Snapshot()
	b := s.Bridge(br)
	if want := []uuid.UUID{vm1, vm2, up}; !slices.Equal(b.Ports, want) { // spare is unplugged
		t.Errorf("flood reaches %v, want %v", b.Ports, want)
	}
	rmac := model.PortMAC(lan)
	if len(b.MACs) != 2 || b.MACs[view.LinkMAC{MAC: vmMAC}] != vm1 || b.MACs[view.LinkMAC{MAC: rmac}] != up {
		t.Errorf("seeded MACs: %v", b.MACs)
	}
	for a, mac := range map[string]match.MAC{"10.0.0.11": vmMAC, "fd00::11": vmMAC, "10.0.0.1": rmac, s.Port(lan).LinkLocal.String(): rmac} {
		if got := b.Neighbours[view.LinkAddr{Addr: match.AddrFrom(netip.MustParseAddr(a))}]; got != mac {
			t.Errorf("%s is at %s, want %s", a, got, mac)
		}
	}
	if len(b.Neighbours) != 4 {
		t.Errorf("seeded neighbours: %v", b.Neighbours)
	}
	if p := s.Port(vm1); !p.Exterior() || p.Host != here || p.Interface != "tap1" || p.Peer != uuid.Nil || p.LinkLocal.IsValid() {
		t.Errorf("vm1: %+v", p)
	}
	if p := s.Port(lan); p.Peer != up || p.Exterior() || p.MAC != rmac {
		t.Errorf("lan: %+v", p)
	}
	for dst, want := range map[string]view.Route{
		"10.0.0.1":  {Dst: pfx("10.0.0.1/32")[0], NextHop: view.ToLocal, Port: lan},
		"10.0.0.9":  {Dst: pfx("10.0.0.0/24")[0], NextHop: view.ToPort, Port: lan},
		"192.0.2.1": {Dst: pfx("192.0.2.0/30")[0], NextHop: view.ToPort, Port: wan},
		"8.8.8.8":   {ID: def, Dst: pfx("0.0.0.0/0")[0], NextHop: view.ToPort, Port: wan, Gateway: gateway, Weight: 100},
	} {
		if got, ok := s.Router(rt).Table.Lookup(netip.MustParseAddr(dst), netip.Addr{}, 0); !ok || *got != want {
			t.Errorf("to %s: %+v, want %+v", dst, got, want)
		}
	}
	if s.Port(id(99)) != nil || s.Bridge(rt) != nil || s.Router(br) != nil {
		t.Error("what does not exist is not nil")
	}
}

func TestLinkLocal(t *testing.T) {
	// The example of RFC 4291 appendix A, 34-56-78-9A-BC-DE.
	if a := linkLocal(match.MAC{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}); a != netip.MustParseAddr("fe80::3656:78ff:fe9a:bcde") {
		t.Error(a)
	}
}

func TestTags(t *testing.T) {
	neighbour := func(a string) tag.Tag {
		return tag.Tag{Kind: tag.Neighbour, ID: br, Addr: match.AddrFrom(netip.MustParseAddr(a))}
	}
	mac := func(m match.MAC) tag.Tag { return tag.Tag{Kind: tag.MACEntry, ID: br, MAC: m} }
	dev := func(id uuid.UUID) tag.Tag { return tag.Tag{Kind: tag.Device, ID: id} }
	port := func(id uuid.UUID) tag.Tag { return tag.Tag{Kind: tag.Port, ID: id} }
	flood, bind := tag.Tag{Kind: tag.Flood, ID: br}, func(id uuid.UUID) tag.Tag { return tag.Tag{Kind: tag.Binding, ID: id} }
	floats := func(a string) tag.Tag {
		return tag.Tag{Kind: tag.Floating, ID: wan, Addr: match.AddrFrom(netip.MustParseAddr(a))}
	}
	public := func(a string, n byte) *model.FloatingIP {
		return &model.FloatingIP{Meta: model.Meta{ID: id(n)}, PortID: wan, Address: netip.MustParseAddr(a), FixedAddress: netip.MustParseAddr("10.0.0.11")}
	}
	otherMAC := match.MAC{0x52, 0x54, 0, 0, 0, 9}
	lanLL := linkLocal(model.PortMAC(lan)).String()
	alone := &model.Port{Meta: model.Meta{ID: lan}, RouterID: rt, AdminStateUp: true, Addresses: pfx("10.0.0.1/24")}
	down := wanPort()
	down.AdminStateUp = false
	moved := vm1Port()
	moved.Addresses = pfx("10.0.0.12/32", "fd00::11/128")
	newMAC := vm1Port()
	newMAC.MAC = otherMAC
	for _, c := range []struct {
		name string
		ops  []store.Op
		want []tag.Tag
	}{
		{"bridge goes down", []store.Op{replace(&model.Bridge{Meta: model.Meta{ID: br, Name: "net"}})}, []tag.Tag{dev(br)}},
		{"new bridge", create(&model.Bridge{Meta: model.Meta{ID: id(50)}}), []tag.Tag{dev(id(50))}},
		{"unbind", []store.Op{remove(binding(vm1, here, ""))}, []tag.Tag{port(vm1), bind(vm1), flood}},
		{"move to another host", []store.Op{replace(binding(vm1, there, "tap1"))}, []tag.Tag{port(vm1), bind(vm1)}},
		{"another address", []store.Op{replace(moved)}, []tag.Tag{port(vm1), neighbour("10.0.0.11"), neighbour("10.0.0.12")}},
		{"another MAC", []store.Op{replace(newMAC)}, []tag.Tag{port(vm1), mac(vmMAC), mac(otherMAC), neighbour("10.0.0.11"), neighbour("fd00::11")}},
		{"unplugged router", []store.Op{replace(alone)}, []tag.Tag{port(up), port(lan), flood, mac(model.PortMAC(lan)), neighbour("10.0.0.1"), neighbour(lanLL), dev(rt)}},
		{"uplink down", []store.Op{replace(down)}, []tag.Tag{port(wan), dev(rt)}},
		{"first floating IP", create(public("192.0.2.10", 41)), []tag.Tag{dev(rt), floats("192.0.2.10"), floats("10.0.0.11")}},
		{"route", []store.Op{remove(&model.Route{Meta: model.Meta{ID: def}})}, []tag.Tag{dev(rt)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t)
			r.next(t) // the initial state
			rev := r.txn(t, c.ops...)
			got := r.next(t)
			if got.Snapshot.Revision != rev {
				t.Errorf("revision %d, want %d", got.Snapshot.Revision, rev)
			}
			order := func(a, b tag.Tag) int { return slices.Compare([]byte(a.String()), []byte(b.String())) }
			slices.SortFunc(got.Tags, order)
			slices.SortFunc(c.want, order)
			if !slices.Equal(got.Tags, c.want) {
				t.Errorf("tags\n%v\nwant\n%v", got.Tags, c.want)
			}
		})
	}
}

func TestRoutesOfADownPortGiveWay(t *testing.T) {
	r := start(t)
	backup := &model.Route{Meta: model.Meta{ID: id(22)}, RouterID: rt, Destination: pfx("0.0.0.0/0")[0], NextHop: model.NextHopReject, Weight: 200}
	r.txn(t, create(backup)...)
	r.next(t)
	r.next(t)
	ask := func(s *view.Snapshot, dst string) view.NextHop {
		x, ok := s.Router(rt).Table.Lookup(netip.MustParseAddr(dst), netip.Addr{}, 0)
		if !ok {
			t.Fatalf("no route to %s", dst)
		}
		return x.NextHop
	}
	r.txn(t, remove(binding(wan, here, "")))
	s := r.next(t).Snapshot
	if ask(s, "8.8.8.8") != view.Reject || ask(s, "192.0.2.1") != view.Reject || ask(s, "192.0.2.2") != view.ToLocal {
		t.Error("routes of an unplugged port are still there, or its own address is not")
	}
}

func TestBindingsOfThisHost(t *testing.T) {
	r := start(t)
	if c := r.next(t); !c.BindingsChanged || !slices.Equal(c.Bindings, []Binding{{Port: vm1, Interface: "tap1"}, {Port: wan, Interface: "eth1"}}) {
		t.Errorf("at first: %+v", c.Bindings)
	}
	r.txn(t, replace(binding(vm2, there, "tap3")))
	if c := r.next(t); c.BindingsChanged {
		t.Errorf("another host's binding: %+v", c.Bindings)
	}
	r.txn(t, replace(binding(vm2, here, "tap3")), remove(binding(wan, here, "")))
	if c := r.next(t); !c.BindingsChanged || !slices.Equal(c.Bindings, []Binding{{Port: vm1, Interface: "tap1"}, {Port: vm2, Interface: "tap3", From: there}}) {
		t.Errorf("another host is to let go: %+v", c.Bindings)
	} else if p := c.Snapshot.Port(vm2); p.Host != there || p.MovesTo != here {
		t.Errorf("the port is at %s, moves to %s", p.Host, p.MovesTo)
	}
	r.txn(t, replace(binding(vm2, here, "tap3").Released()))
	if c := r.next(t); !c.BindingsChanged || !slices.Equal(c.Bindings, []Binding{{Port: vm1, Interface: "tap1"}, {Port: vm2, Interface: "tap3"}}) {
		t.Errorf("after a move: %+v", c.Bindings)
	} else if p := c.Snapshot.Port(vm2); p.Host != here || p.MovesTo != uuid.Nil {
		t.Errorf("the port is at %s, moves to %s", p.Host, p.MovesTo)
	}
	r.txn(t, replace(binding(vm1, there, "tap9")))
	if c := r.next(t); !c.BindingsChanged || !slices.Equal(c.Bindings, []Binding{{Port: vm1, To: there}, {Port: vm2, Interface: "tap3"}}) {
		t.Errorf("this host is to let go: %+v", c.Bindings)
	}
}

// The hosts of all ports of a stateful group are told of a connection: each port knows the others, as they come and go.
func TestSiblings(t *testing.T) {
	r := start(t)
	r.next(t)
	group := &model.PortGroup{Meta: model.Meta{ID: id(60), Name: "uplinks"}, Stateful: true}
	in := func(p *model.Port) *model.Port { p.PortGroups = []uuid.UUID{group.ID}; return p }
	siblings := func(want1, want2 []uuid.UUID) {
		t.Helper()
		if c := r.next(t); !slices.Equal(c.Snapshot.Port(vm1).Siblings, want1) || !slices.Equal(c.Snapshot.Port(vm2).Siblings, want2) {
			t.Errorf("siblings %v and %v, want %v and %v", c.Snapshot.Port(vm1).Siblings, c.Snapshot.Port(vm2).Siblings, want1, want2)
		}
	}
	port2 := func() *model.Port {
		return model.Clone(sample()[slices.IndexFunc(sample(), func(o model.Object) bool { return o.GetMeta().ID == vm2 && o.Kind() == model.KindPort })]).(*model.Port)
	}
	r.txn(t, append(create(group), replace(in(vm1Port())))...)
	siblings(nil, nil)
	r.txn(t, replace(in(port2())))
	siblings([]uuid.UUID{vm2}, []uuid.UUID{vm1})
	plain := *group
	plain.Stateful = false
	r.txn(t, replace(&plain))
	siblings(nil, nil)
	r.txn(t, replace(group))
	siblings([]uuid.UUID{vm2}, []uuid.UUID{vm1})
	r.txn(t, replace(port2()))
	siblings(nil, nil)
}

func TestOutage(t *testing.T) {
	r := start(t)
	before := r.next(t).Snapshot
	r.link.Disconnect()
	r.txn(t, remove(binding(vm1, here, "")))
	r.txn(t, create(&model.Bridge{Meta: model.Meta{ID: id(50)}})...)
	rev := r.txn(t, remove(vm1Port()))
	if r.Snapshot() != before {
		t.Error("without a store the snapshot changes")
	}
	r.link.Reconnect()
	c := r.next(t)
	if c.Snapshot.Revision != rev || c.Snapshot.Port(vm1) != nil || c.Snapshot.Bridge(id(50)) == nil {
		t.Errorf("after the outage: %+v", c.Snapshot)
	}
	for _, want := range []tag.Tag{{Kind: tag.Port, ID: vm1}, {Kind: tag.Flood, ID: br}, {Kind: tag.MACEntry, ID: br, MAC: vmMAC}, {Kind: tag.Device, ID: id(50)}} {
		if !slices.Contains(c.Tags, want) {
			t.Errorf("%s is not invalidated", want)
		}
	}
	if slices.Contains(c.Tags, tag.Tag{Kind: tag.Device, ID: rt}) || c.Snapshot.Router(rt) != before.Router(rt) {
		t.Error("what did not change is invalidated")
	}
}
