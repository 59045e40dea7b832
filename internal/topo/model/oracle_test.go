package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// dump writes everything that is in g, indexes included, in a fixed order.
func (g *Graph) dump() string {
	lines := g.lines()
	for u, owner := range g.unique {
		lines = append(lines, fmt.Sprintf("%v = %s", u, owner))
	}
	for u, ids := range g.waiting {
		lines = append(lines, fmt.Sprintf("%v for %s", u, ids))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// lines are the objects and what refers to them, in no order.
func (g *Graph) lines() (lines []string) {
	for k, m := range g.objects {
		for _, o := range m {
			lines = append(lines, fmt.Sprintf("%s %+v", k, o))
		}
	}
	for to := range g.referrers {
		for from := range g.referrersOf(to) {
			lines = append(lines, fmt.Sprintf("%v <- %v", to, from))
		}
	}
	return lines
}

func (x *Index) dump() string {
	var lines []string
	for k, bs := range x.of {
		lines = append(lines, fmt.Sprintf("%v in %v", k, bs))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// foreign writes what is not a tenant's, and not shared: nothing of it may change on the tenant's behalf. Only that the tenant
// unplugs its own port from one of theirs is seen at both ends.
func (g *Graph) foreign(tenant string) string {
	var lines []string
	for k, m := range g.objects {
		for _, o := range m {
			if Visible(o, tenant) {
				continue
			}
			c := Clone(o)
			c.GetMeta().Revision = 0
			if p, ok := c.(*Port); ok {
				p.PeerID = uuid.Nil
			}
			lines = append(lines, fmt.Sprintf("%s %+v", k, c))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// check holds g against the rules, written down once more without any index.
func check(t rapid.TB, g *Graph) {
	t.Helper()
	type claim struct {
		where uuid.UUID
		vlan  uint16
		what  any
	}
	claims := make(map[claim]uuid.UUID)
	own := func(c claim, who uuid.UUID) {
		if other, ok := claims[c]; ok && other != who {
			t.Fatalf("%v belongs to %s and %s", c, other, who)
		}
		claims[c] = who
	}
	for _, k := range Kinds {
		for o := range g.All(k) {
			if n := o.GetMeta().Name; n != "" {
				own(claim{what: string(k) + "/" + o.GetMeta().Tenant + "/" + n}, o.GetMeta().ID)
			}
			for _, to := range Refs(o) {
				if g.Get(to.Kind, to.ID) == nil {
					t.Fatalf("%v refers to %v, which does not exist", KeyOf(o), to)
				}
			}
		}
	}
	for o := range g.All(KindPort) {
		p := o.(*Port)
		link, vlan := p.BridgeID, p.VLAN
		if p.PeerID != uuid.Nil {
			peer := g.Get(KindPort, p.PeerID).(*Port)
			if peer.PeerID != p.ID || g.Get(KindBinding, p.ID) != nil {
				t.Fatalf("port %s has a peer that does not know, or a binding", p.ID)
			}
			if link == uuid.Nil {
				link, vlan = peer.BridgeID, peer.VLAN
			}
		}
		if link != uuid.Nil {
			if p.MAC != (match.MAC{}) {
				own(claim{link, vlan, p.MAC}, p.ID)
			}
			for _, a := range p.Addresses {
				own(claim{link, vlan, a.Addr()}, p.ID)
			}
		}
		for x := range g.All(KindPort) {
			q := x.(*Port)
			if p.RouterID == uuid.Nil || p.RouterID != q.RouterID || p.ID == q.ID {
				continue
			}
			for _, a := range p.Addresses {
				if slices.ContainsFunc(q.Addresses, a.Overlaps) {
					t.Fatalf("%v and %v of one router overlap", p.Addresses, q.Addresses)
				}
			}
		}
	}
	for o := range g.All(KindBinding) {
		b := o.(*Binding)
		own(claim{where: b.HostID, what: b.Interface}, b.ID)
	}
	for o := range g.All(KindRoute) {
		r := o.(*Route)
		if p := g.Get(KindPort, r.PortID).(*Port); p.RouterID != r.RouterID ||
			!slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.Contains(r.Gateway) }) {
			t.Fatalf("route %s does not fit port %s", r.ID, p.ID)
		}
	}
	references, held := 0, 0
	for _, k := range Kinds {
		for o := range g.All(k) {
			to := Refs(o)
			slices.SortFunc(to, CompareKeys)
			for _, to := range slices.Compact(to) {
				references++
				if !slices.Contains(slices.Collect(g.referrersOf(to)), KeyOf(o)) {
					t.Fatalf("%v does not know that %v refers to it", to, KeyOf(o))
				}
			}
		}
	}
	for to := range g.referrers {
		held += len(slices.Collect(g.referrersOf(to)))
	}
	if held != references {
		t.Fatalf("%d references are held, want %d", held, references)
	}
	// The indexes are those of a graph that saw nothing but the outcome.
	fresh := NewGraph()
	for _, k := range slices.Backward(Kinds) { // worst order: references dangle for a while
		for o := range g.All(k) {
			fresh.Load(o)
		}
	}
	if a, b := g.dump(), fresh.dump(); a != b {
		t.Fatalf("indexes have drifted:\n%s\nwant\n%s", a, b)
	}
}

// alike says that a replica that has followed g knows what g does, but for claims.
func (g *Graph) alike(t rapid.TB, replica *Graph) {
	t.Helper()
	want, have := g.lines(), replica.lines()
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Fatalf("a replica has\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	for _, tenant := range []string{"", "acme", "beta"} {
		if have, want := replica.Default(tenant), g.Default(tenant); (have == nil) != (want == nil) || have != nil && have.ID != want.ID {
			t.Fatalf("the default group of %q is %v, want %v", tenant, have, want)
		}
	}
}

// TestRandomTransactions holds what Stage lets pass against the rules, and what it refuses to leave no trace. A replica follows.
func TestRandomTransactions(t *testing.T) {
	names := rapid.SampledFrom([]string{"", "a", "b"})
	pick := func(lo, hi int) *rapid.Generator[uuid.UUID] {
		return rapid.Map(rapid.IntRange(lo, hi), func(n int) uuid.UUID { return id(byte(n)) })
	}
	maybe := func(t *rapid.T, g *rapid.Generator[uuid.UUID]) uuid.UUID {
		if rapid.Bool().Draw(t, "some") {
			return g.Draw(t, "id")
		}
		return uuid.Nil
	}
	tenants := rapid.SampledFrom([]string{"", "", "acme", "beta"})
	bridges, routers, ports, hosts := pick(1, 2), pick(3, 4), pick(11, 16), pick(31, 32)
	groups := pick(41, 43)
	addrs := rapid.SampledFrom(pfx("10.0.0.1/24", "10.0.0.2/24", "10.0.1.1/24", "10.0.0.1/32", "10.0.0.2/32"))
	object := rapid.Custom(func(t *rapid.T) Object {
		name := names.Draw(t, "name")
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return &Bridge{Meta: Meta{ID: bridges.Draw(t, "bridge"), Name: name}}
		case 1:
			return &Router{Meta: Meta{ID: routers.Draw(t, "router"), Name: name}}
		case 2:
			return &Host{Meta: Meta{ID: hosts.Draw(t, "host"), Name: name}}
		case 3:
			return &Route{Meta: Meta{ID: id(21), Name: name}, RouterID: routers.Draw(t, "router"), Destination: pfx("0.0.0.0/0")[0],
				NextHop: NextHopPort, PortID: ports.Draw(t, "port"), Gateway: netip.MustParseAddr("10.0.0.254")}
		case 4:
			p := ports.Draw(t, "port")
			return &Binding{Meta: Meta{ID: p}, PortID: p, HostID: hosts.Draw(t, "host"), Interface: rapid.SampledFrom([]string{"t0", "t1"}).Draw(t, "if")}
		case 5:
			return &SecurityGroup{Meta: Meta{ID: groups.Draw(t, "group"), Name: rapid.SampledFrom([]string{"a", DefaultGroup}).Draw(t, "name")}}
		}
		p := &Port{Meta: Meta{ID: ports.Draw(t, "port"), Name: name}, PeerID: maybe(t, ports), Addresses: rapid.SliceOfN(addrs, 0, 2).Draw(t, "addrs")}
		if p.ID[15]%2 == 0 {
			p.BridgeID = bridges.Draw(t, "bridge")
			p.MAC = mac(byte(rapid.IntRange(1, 3).Draw(t, "mac")))
			p.VLAN = rapid.SampledFrom([]uint16{0, 0, 7}).Draw(t, "vlan")
		} else {
			p.RouterID = routers.Draw(t, "router")
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		g := NewGraph()
		for _, k := range []Object{&Bridge{Meta: Meta{ID: id(1)}}, &Bridge{Meta: Meta{ID: id(2)}}, &Router{Meta: Meta{ID: id(3)}}, &Host{Meta: Meta{ID: id(31)}}} {
			g.Load(k)
		}
		index, replica, follower := NewIndex(g), NewReplica(), NewGraph()
		for _, k := range Kinds {
			for o := range g.All(k) {
				replica.Load(Clone(o))
				follower.Load(Clone(o))
			}
		}
		for rev := range int64(rapid.IntRange(1, 20).Draw(t, "txns")) {
			var ops []Op
			for range rapid.IntRange(1, 4).Draw(t, "ops") {
				o := object.Draw(t, "object")
				verb := Create // mostly what can succeed
				if g.Get(o.Kind(), o.GetMeta().ID) != nil {
					verb = rapid.SampledFrom([]Verb{Replace, Replace, Delete}).Draw(t, "verb")
				}
				if !slices.Contains(OperatorKinds, o.Kind()) {
					o.GetMeta().Shared = rapid.Bool().Draw(t, "shared")
				}
				ops = append(ops, Op{Verb: verb, Object: o})
			}
			tenant := tenants.Draw(t, "tenant")
			for i := range ops {
				if ops[i].Tenant = tenant; tenant != "" {
					ops[i].Object.GetMeta().Shared = false
				}
			}
			theirs := g.foreign(tenant)
			before := g.dump()
			s, err := g.Stage(ops...)
			if err == nil && rapid.Bool().Draw(t, "commit") {
				index.Apply(index.Plan(g, s.Changes))
				s.Commit(rev + 1)
				check(t, g)
				for _, c := range s.Changes {
					if c.New == nil {
						replica.Unload(KeyOf(c.Old))
						follower.Unload(KeyOf(c.Old))
					} else {
						replica.Load(Clone(c.New))
						follower.Load(Clone(c.New))
					}
				}
				g.alike(t, replica)
				if now, want := follower.dump(), g.dump(); now != want {
					t.Fatalf("who follows has drifted:\n%s\nwant\n%s", now, want)
				}
				if now, want := index.dump(), NewIndex(g).dump(); now != want {
					t.Fatalf("bundles have drifted:\n%s\nwant\n%s", now, want)
				}
				if now := g.foreign(tenant); tenant != "" && now != theirs {
					t.Fatalf("%s changed what is not its own:\n%s\nwas\n%s", tenant, now, theirs)
				}
				continue
			}
			if err == nil {
				s.Rollback()
			}
			if after := g.dump(); after != before {
				t.Fatalf("no trace expected (%v):\n%s\nwas\n%s", err, after, before)
			}
		}
	})
}
