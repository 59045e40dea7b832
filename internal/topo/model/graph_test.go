package model

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

func id(n byte) uuid.UUID { return uuid.UUID{6: 0x40, 8: 0x80, 15: n} }

func mac(n byte) match.MAC { return match.MAC{0x52, 0x54, 0, 0, 0, n} }

func pfx(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func create(os ...Object) []Op {
	var ops []Op
	for _, o := range os {
		ops = append(ops, Op{Verb: Create, Object: o})
	}
	return ops
}

func replace(o Object) []Op { return []Op{{Verb: Replace, Object: o}} }
func remove(o Object) []Op  { return []Op{{Verb: Delete, Object: o}} }

// Ids of the sample network.
var (
	br1, br2, rt1              = id(1), id(2), id(3)
	vm1, vm2, uplink, lan, wan = id(11), id(12), id(13), id(14), id(15)
	rte                        = id(21)
	h1                         = id(31)
)

func sample() []Op {
	return create(
		&Bridge{Meta: Meta{ID: br1, Name: "br1"}},
		&Bridge{Meta: Meta{ID: br2, Name: "br2"}},
		&Router{Meta: Meta{ID: rt1, Name: "rt1"}},
		&Host{Meta: Meta{ID: h1, Name: "h1"}},
		&Port{Meta: Meta{ID: vm1, Name: "vm1"}, BridgeID: br1, MAC: mac(1), Addresses: pfx("10.0.0.11/32", "fd00::11/128")},
		&Port{Meta: Meta{ID: vm2, Name: "vm2"}, BridgeID: br1, MAC: mac(2), Addresses: pfx("10.0.0.12/32")},
		&Port{Meta: Meta{ID: uplink, Name: "uplink"}, BridgeID: br1},
		&Port{Meta: Meta{ID: lan, Name: "lan"}, RouterID: rt1, PeerID: uplink, Addresses: pfx("10.0.0.1/24")},
		&Port{Meta: Meta{ID: wan, Name: "wan"}, RouterID: rt1, Addresses: pfx("192.0.2.2/30", "fd01::2/64")},
		&Route{Meta: Meta{ID: rte, Name: "default"}, RouterID: rt1, Destination: pfx("0.0.0.0/0")[0],
			NextHop: NextHopPort, PortID: wan, Gateway: netip.MustParseAddr("192.0.2.1")},
		&Binding{Meta: Meta{ID: vm1}, PortID: vm1, HostID: h1, Interface: "tap1"},
	)
}

func sampleGraph(t *testing.T) *Graph {
	t.Helper()
	g := NewGraph()
	s, err := g.Stage(sample()...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(1)
	return g
}

// floating gives wan a floating IP and then port another one.
func floating(port uuid.UUID, address, fixed string) func(*Graph) []Op {
	f := func(n byte, port uuid.UUID, address, fixed string) *FloatingIP {
		return &FloatingIP{Meta: Meta{ID: id(n)}, PortID: port, Address: netip.MustParseAddr(address), FixedAddress: netip.MustParseAddr(fixed)}
	}
	return func(*Graph) []Op {
		return create(f(41, wan, "192.0.2.20", "10.0.0.20"), f(42, port, address, fixed))
	}
}

// changed gives the sample object with f applied.
func changed[T Object](g *Graph, i uuid.UUID, f func(T)) []Op {
	var zero T
	o := Clone(g.Get(zero.Kind(), i)).(T)
	f(o)
	return replace(o)
}

func TestRefusals(t *testing.T) {
	port := func(i uuid.UUID, f func(*Port)) func(*Graph) []Op {
		return func(g *Graph) []Op { return changed(g, i, f) }
	}
	route := func(f func(*Route)) func(*Graph) []Op {
		return func(g *Graph) []Op { return changed(g, rte, f) }
	}
	bind := func(f func(*Binding)) func(*Graph) []Op {
		return func(g *Graph) []Op { return changed(g, vm1, f) }
	}
	fixed := func(ops ...Op) func(*Graph) []Op { return func(*Graph) []Op { return ops } }
	long := strings.Repeat("x", 256)

	for _, c := range []struct {
		name string
		ops  func(*Graph) []Op
		is   error
		text string // in the message
	}{
		{"no id", fixed(create(&Bridge{})...), ErrInvalid, "id: is missing"},
		{"id twice", fixed(create(&Bridge{Meta: Meta{ID: br1}})...), ErrExists, br1.String()},
		{"name twice", fixed(create(&Bridge{Meta: Meta{ID: id(99), Name: "br1"}})...), ErrExists, "bridge br1: already exists"},
		{"long name", fixed(create(&Bridge{Meta: Meta{ID: id(99), Name: long}})...), ErrInvalid, "name: is longer"},
		{"control in name", fixed(create(&Bridge{Meta: Meta{ID: id(99), Name: "a\nb"}})...), ErrInvalid, `name: '\n'`},
		{"name like an id", fixed(create(&Bridge{Meta: Meta{ID: id(99), Name: br1.String()}})...), ErrInvalid, "another object's id"},
		{"replace nothing", fixed(replace(&Bridge{Meta: Meta{ID: id(99)}})...), ErrNotFound, "not found"},
		{"delete nothing", fixed(remove(&Bridge{Meta: Meta{ID: id(99)}})...), ErrNotFound, "not found"},
		{"old revision", fixed(Op{Verb: Replace, Object: &Bridge{Meta: Meta{ID: br1}}, IfRevision: 7}), ErrConflict, "at revision 1, expected 7"},
		{"no object", fixed(Op{Verb: Create}), ErrInvalid, "without an object"},
		{"no verb", fixed(Op{Object: &Bridge{Meta: Meta{ID: br1}}}), ErrInvalid, "verb 0"},

		{"port of nothing", fixed(create(&Port{Meta: Meta{ID: id(99)}})...), ErrInvalid, "bridge: a port is of"},
		{"port of both", fixed(create(&Port{Meta: Meta{ID: id(99)}, BridgeID: br1, RouterID: rt1})...), ErrInvalid, "router: a port is of"},
		{"port of no bridge", fixed(create(&Port{Meta: Meta{ID: id(99), Name: "p"}, BridgeID: id(98)})...), ErrInvalid, "port p: bridge: no bridge"},
		{"port of no router", fixed(create(&Port{Meta: Meta{ID: id(99)}, RouterID: id(98)})...), ErrInvalid, "router: no router"},
		{"port moves", port(vm1, func(p *Port) { p.BridgeID = br2 }), ErrInvalid, "port vm1: bridge: cannot change"},
		{"own peer", port(vm2, func(p *Port) { p.PeerID = vm2 }), ErrInvalid, "peer: is the port itself"},
		{"dangling peer", port(vm2, func(p *Port) { p.PeerID = id(98) }), ErrInvalid, "peer: no port"},
		{"peer is taken", port(vm2, func(p *Port) { p.PeerID = lan }), ErrInvalid, "peer: port lan already has a peer"},
		{"peer on the same bridge", port(vm2, func(p *Port) { p.PeerID = id(97) }), ErrInvalid, "peer: no port"},
		{"peer of a bound port", port(wan, func(p *Port) { p.PeerID = vm1 }), ErrInvalid, "bound to interface tap1"},
		{"multicast MAC", port(vm1, func(p *Port) { p.MAC[0] |= 1 }), ErrInvalid, "port vm1: mac: 53:54:00:00:00:01 is a multicast"},
		{"MAC twice", port(vm1, func(p *Port) { p.MAC = mac(2) }), ErrInvalid, "already that of port vm2"},
		{"MAC of the router", port(vm1, func(p *Port) { p.MAC = PortMAC(lan) }), ErrInvalid, "already that of port lan"},
		{"address twice", port(vm1, func(p *Port) { p.Addresses = pfx("10.0.0.10/32", "10.0.0.12/32") }), ErrInvalid, "port vm1: addresses[1]: 10.0.0.12 is already that of port vm2"},
		{"address of the router", port(vm1, func(p *Port) { p.Addresses = pfx("10.0.0.1/32") }), ErrInvalid, "already that of port lan"},
		{"address twice in one port", port(vm1, func(p *Port) { p.Addresses = pfx("10.0.0.9/32", "10.0.0.9/32") }), ErrInvalid, "addresses[1]: 10.0.0.9 is there twice"},
		{"subnet on a bridge port", port(vm1, func(p *Port) { p.Addresses = pfx("10.0.0.9/24") }), ErrInvalid, "full length, /32"},
		{"zero address", port(vm1, func(p *Port) { p.Addresses = []netip.Prefix{{}} }), ErrInvalid, "addresses[0]: is not"},
		{"mapped address", port(vm1, func(p *Port) { p.Addresses = pfx("::ffff:10.0.0.9/128") }), ErrInvalid, "write 10.0.0.9"},
		{"multicast address", port(vm1, func(p *Port) { p.Addresses = pfx("224.0.0.1/32") }), ErrInvalid, "multicast"},
		{"loopback address", port(vm1, func(p *Port) { p.Addresses = pfx("::1/128") }), ErrInvalid, "loopback"},
		{"unspecified address", port(vm1, func(p *Port) { p.Addresses = pfx("0.0.0.0/32") }), ErrInvalid, "unspecified"},
		{"network address", port(wan, func(p *Port) { p.Addresses = pfx("192.0.2.0/30") }), ErrInvalid, "subnet itself"},
		{"broadcast address", port(wan, func(p *Port) { p.Addresses = pfx("192.0.2.3/30") }), ErrInvalid, "broadcast"},
		{"overlapping subnets", port(wan, func(p *Port) { p.Addresses = pfx("10.0.0.130/25", "192.0.2.2/30") }), ErrInvalid, "addresses[0]: 10.0.0.130/25 overlaps 10.0.0.1/24 of port lan"},
		{"router port address twice", port(wan, func(p *Port) { p.Addresses = pfx("192.0.2.2/30", "10.0.0.1/32") }), ErrInvalid, "addresses[1]: 10.0.0.1/32 overlaps"},
		{"subnet goes under a gateway", port(wan, func(p *Port) { p.Addresses = pfx("192.0.2.6/30") }), ErrInvalid, "route default: gateway: 192.0.2.1 is in no subnet of port wan"},

		{"masquerade on a bridge", port(vm1, func(p *Port) { p.Masquerade = true }), ErrInvalid, "masquerade: needs a router port"},
		{"masquerade without IPv4", port(wan, func(p *Port) { p.Masquerade, p.Addresses = true, pfx("fd01::2/64") }), ErrInvalid, "masquerade: needs a router port with an IPv4"},
		{"floating IP of a bridge", floating(vm1, "192.0.2.10", "10.0.0.11"), ErrInvalid, "port: port vm1 is not of a router"},
		{"floating IP of nothing", floating(id(99), "192.0.2.10", "10.0.0.11"), ErrInvalid, "port: no port"},
		{"floating IP is the port's", floating(wan, "192.0.2.2", "10.0.0.11"), ErrInvalid, "address: 192.0.2.2 is the own address of port wan"},
		{"floating IP for itself", floating(wan, "192.0.2.10", "192.0.2.10"), ErrInvalid, "fixed_address: is the floating address itself"},
		{"floating IP across families", floating(wan, "192.0.2.10", "fd00::11"), ErrInvalid, "fixed_address: fd00::11 is not of the family"},
		{"floating IP of a group", floating(wan, "224.0.0.1", "10.0.0.11"), ErrInvalid, "address: 224.0.0.1 is a multicast"},
		{"floating IP link-local", floating(wan, "fe80::9", "fd00::11"), ErrInvalid, "address: fe80::9 is a link-local"},
		{"floating IP twice", floating(wan, "192.0.2.20", "10.0.0.12"), ErrInvalid, "address: 192.0.2.20 is already that of"},
		{"fixed address twice", floating(wan, "192.0.2.11", "10.0.0.20"), ErrInvalid, "fixed_address: 10.0.0.20 is already that of"},

		{"route of nothing", route(func(r *Route) { r.RouterID = uuid.Nil }), ErrInvalid, "router: is missing"},
		{"route to nothing", route(func(r *Route) { r.Destination = netip.Prefix{} }), ErrInvalid, "destination: is not a prefix"},
		{"host bits", route(func(r *Route) { r.Destination = netip.MustParsePrefix("10.0.0.1/8") }), ErrInvalid, "write 10.0.0.0/8"},
		{"source of another family", route(func(r *Route) { r.Source = netip.MustParsePrefix("fd00::/8") }), ErrInvalid, "source: fd00::/8 is not of the family"},
		{"route port missing", route(func(r *Route) { r.PortID = uuid.Nil }), ErrInvalid, "port: is missing"},
		{"route port dangling", route(func(r *Route) { r.PortID = id(98) }), ErrInvalid, "port: no port"},
		{"route port elsewhere", route(func(r *Route) { r.PortID = vm1 }), ErrInvalid, "port: port vm1 is not of this router"},
		{"gateway elsewhere", route(func(r *Route) { r.Gateway = netip.MustParseAddr("198.51.100.1") }), ErrInvalid, "gateway: 198.51.100.1 is in no subnet"},
		{"gateway is the port", route(func(r *Route) { r.Gateway = netip.MustParseAddr("192.0.2.2") }), ErrInvalid, "own address"},
		{"gateway of another family", route(func(r *Route) { r.Gateway = netip.MustParseAddr("fd01::1") }), ErrInvalid, "gateway: fd01::1 is not of the family"},
		{"blackhole with gateway", route(func(r *Route) { r.NextHop, r.PortID = NextHopBlackhole, uuid.Nil }), ErrInvalid, "gateway: has no meaning"},
		{"reject with port", route(func(r *Route) { r.NextHop = NextHopReject }), ErrInvalid, "port: has no meaning"},
		{"unknown next hop", route(func(r *Route) { r.NextHop = "moon" }), ErrInvalid, `next_hop: "moon"`},
		{"negative weight", route(func(r *Route) { r.Weight = -1 }), ErrInvalid, "weight"},

		{"binding id", fixed(create(&Binding{Meta: Meta{ID: id(99)}, PortID: vm2, HostID: h1, Interface: "tap2"})...), ErrInvalid, "id: must be"},
		{"bound twice", fixed(create(&Binding{Meta: Meta{ID: vm1}, PortID: vm1, HostID: h1, Interface: "tap2"})...), ErrExists, "already exists"},
		{"interface taken", fixed(create(&Binding{Meta: Meta{ID: vm2}, PortID: vm2, HostID: h1, Interface: "tap1"})...), ErrInvalid, "interface: tap1 is already taken"},
		{"no host", bind(func(b *Binding) { b.HostID = id(98) }), ErrInvalid, "host: no host"},
		{"no interface", bind(func(b *Binding) { b.Interface = "" }), ErrInvalid, "interface: is missing"},
		{"slash", bind(func(b *Binding) { b.Interface = "a/b" }), ErrInvalid, "interface"},
		{"dots", bind(func(b *Binding) { b.Interface = ".." }), ErrInvalid, "interface"},
		{"space", bind(func(b *Binding) { b.Interface = "a b" }), ErrInvalid, "white space"},
		{"16 bytes", bind(func(b *Binding) { b.Interface = "0123456789abcdef" }), ErrInvalid, "longer than 15"},
		{"binding of an interior port", fixed(create(&Binding{Meta: Meta{ID: lan}, PortID: lan, HostID: h1, Interface: "tap2"})...), ErrInvalid, "port lan has a peer"},

		{"bridge in use", fixed(remove(&Bridge{Meta: Meta{ID: br1}})...), ErrReferenced, "by port uplink, port vm1, port vm2"},
		{"router in use", fixed(remove(&Router{Meta: Meta{ID: rt1}})...), ErrReferenced, "by port lan, port wan, route default"},
		{"port with a route", fixed(remove(&Port{Meta: Meta{ID: wan}})...), ErrReferenced, "port wan: still referred to by route default"},
		{"bound port", fixed(remove(&Port{Meta: Meta{ID: vm1}})...), ErrReferenced, "by binding " + vm1.String()},
		{"host in use", fixed(remove(&Host{Meta: Meta{ID: h1}})...), ErrReferenced, "host h1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := sampleGraph(t)
			before := g.dump()
			// A valid op in front must leave no trace either.
			ops := append(create(&Bridge{Meta: Meta{ID: id(200), Name: "extra"}}), c.ops(g)...)
			_, err := g.Stage(ops...)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v; want %v with %q", err, c.is, c.text)
			}
			if after := g.dump(); after != before {
				t.Errorf("a refused transaction changed the graph:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func TestPeersOnTheSameDevice(t *testing.T) {
	g := sampleGraph(t)
	_, err := g.Stage(create(&Port{Meta: Meta{ID: id(99)}, BridgeID: br1, PeerID: vm2})...)
	if err == nil || !strings.Contains(err.Error(), "of the same device") {
		t.Error(err)
	}
}

func TestDefaults(t *testing.T) {
	g := sampleGraph(t)
	p := g.Get(KindPort, lan).(*Port)
	if p.MAC != PortMAC(lan) || p.MAC[0] != 0x02 {
		t.Errorf("router port has MAC %s", p.MAC)
	}
	if r := g.Get(KindRoute, rte).(*Route); r.Weight != DefaultWeight {
		t.Errorf("weight %d", r.Weight)
	}
}

func TestCommitWritesBack(t *testing.T) {
	g := NewGraph()
	ops := sample()
	s, err := g.Stage(ops...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(42)
	up := ops[6].Object.(*Port)
	if up.Revision != 42 || up.PeerID != lan {
		t.Errorf("the caller's object is %+v", up)
	}
	if ops[7].Object.(*Port).MAC != PortMAC(lan) {
		t.Error("the caller's object has no MAC")
	}
}

func TestNamesAndAddressesChangeHands(t *testing.T) {
	g := sampleGraph(t)
	a, b := Clone(g.Get(KindPort, vm1)).(*Port), Clone(g.Get(KindPort, vm2)).(*Port)
	a.Name, b.Name = b.Name, a.Name
	a.MAC, b.MAC = b.MAC, a.MAC
	a.Addresses, b.Addresses = b.Addresses, a.Addresses
	s, err := g.Stage(append(replace(a), replace(b)...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	check(t, g)
}

func TestWholeDeletionInAnyOrder(t *testing.T) {
	g := sampleGraph(t)
	var ops []Op
	for _, k := range Kinds { // what is referred to first
		for o := range g.All(k) {
			ops = append(ops, remove(Clone(o))...)
		}
	}
	s, err := g.Stage(ops...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	if d := g.dump(); d != NewGraph().dump() {
		t.Errorf("left behind:\n%s", d)
	}
}
