package mirror

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// TestChangeByChangeEqualsFromScratch applies random transactions one by one, and compares each snapshot with
// one that is built from the whole state, and the tags with what differs.
func TestChangeByChangeEqualsFromScratch(t *testing.T) {
	bridges, routers := []uuid.UUID{br, id(5)}, []uuid.UUID{rt, id(6)}
	rapid.Check(t, func(t *rapid.T) {
		s := mem.New()
		defer s.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ch, err := s.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		<-ch // Synced
		m := New(here)
		base := create(sample()...)
		base = append(base, create(&model.Bridge{Meta: model.Meta{ID: id(5)}}, &model.Router{Meta: model.Meta{ID: id(6)}, AdminStateUp: true},
			&model.TunnelZone{Meta: model.Meta{ID: id(43)}}, &model.TunnelZone{Meta: model.Meta{ID: id(44)}})...)
		txns := [][]store.Op{base}
		for range rapid.IntRange(1, 12).Draw(t, "txns") {
			var ops []store.Op
			for range rapid.IntRange(1, 3).Draw(t, "ops") {
				ops = append(ops, randomOp(t, bridges, routers))
			}
			txns = append(txns, ops)
		}
		for _, ops := range txns {
			rev, err := s.Txn(ctx, ops...)
			if err != nil {
				continue // most likely a reference; the store's tests care
			}
			if rev == m.Snapshot().Revision {
				continue // created and deleted again: there is no event
			}
			var events []store.Event
			for e := range ch {
				if events = append(events, e); e.Last {
					break
				}
			}
			if rapid.Bool().Draw(t, "lives change") {
				alive := rapid.SliceOfDistinct(rapid.SampledFrom([]uuid.UUID{here, there, id(41)}), rapid.ID).Draw(t, "alive")
				was := m.Snapshot()
				now, tags := m.next(was, m.setHosts(live.Of(alive...)), was.Revision)
				m.snapshot.Store(now)
				for k := range union(was.Hosts, now.Hosts) {
					mustTag(t, tags, was.Hosts[k] != now.Hosts[k], tag.Tag{Kind: tag.Host, ID: k})
				}
				for k := range union(was.Routers, now.Routers) {
					mustTag(t, tags, was.Router(k) != now.Router(k), tag.Tag{Kind: tag.Device, ID: k})
				}
			}
			before := m.Snapshot()
			after, tags := m.next(before, m.apply(events), rev)
			m.snapshot.Store(after)
			compare(t, s, m)
			for k := range union(before.Ports, after.Ports) {
				mustTag(t, tags, before.Port(k) != after.Port(k), tag.Tag{Kind: tag.Port, ID: k})
			}
			for k := range union(before.Hosts, after.Hosts) {
				mustTag(t, tags, before.Hosts[k] != after.Hosts[k], tag.Tag{Kind: tag.Host, ID: k})
			}
			for k := range union(before.Security, after.Security) {
				mustTag(t, tags, before.SecurityGroup(k) != after.SecurityGroup(k), tag.Tag{Kind: tag.Chain, ID: k})
				mustTagMembers(t, tags, k, before.AddressGroup(k), after.AddressGroup(k))
			}
			for k := range union(before.Balancers, after.Balancers) {
				mustTagBalancer(t, tags, k, before.LoadBalancer(k), after.LoadBalancer(k))
			}
			for k := range union(before.Routers, after.Routers) {
				mustTag(t, tags, before.Router(k) != after.Router(k), tag.Tag{Kind: tag.Device, ID: k})
			}
			for k := range union(before.Bridges, after.Bridges) {
				was, is := before.Bridge(k), after.Bridge(k)
				if was == nil || is == nil {
					mustTag(t, tags, was != is, tag.Tag{Kind: tag.Device, ID: k})
					continue
				}
				mustTag(t, tags, was.Name != is.Name || was.AdminUp != is.AdminUp || !reflect.DeepEqual(was.Subnets, is.Subnets) || !reflect.DeepEqual(was.Mirrors, is.Mirrors), tag.Tag{Kind: tag.Device, ID: k})
				mustTag(t, tags, !slices.Equal(was.Ports, is.Ports), tag.Tag{Kind: tag.Flood, ID: k})
				for mac := range union(was.MACs, is.MACs) {
					mustTag(t, tags, was.MACs[mac] != is.MACs[mac], tag.Tag{Kind: tag.MACEntry, ID: k, MAC: mac.MAC, VLAN: mac.VLAN})
				}
				for a := range union(was.Neighbours, is.Neighbours) {
					mustTag(t, tags, was.Neighbours[a] != is.Neighbours[a], tag.Tag{Kind: tag.Neighbour, ID: k, Addr: a.Addr})
				}
			}
		}
		cancel()
		for range ch {
		}
	})
}

func union[K comparable, V any](a, b map[K]V) map[K]struct{} {
	u := make(map[K]struct{})
	for k := range a {
		u[k] = struct{}{}
	}
	for k := range b {
		u[k] = struct{}{}
	}
	return u
}

// mustTag demands want exactly when something differs.
func mustTag(t *rapid.T, tags []tag.Tag, differs bool, want tag.Tag) {
	t.Helper()
	if slices.Contains(tags, want) != differs {
		t.Fatalf("%s: changed %v, tags %v", want, differs, tags)
	}
}

// compare builds everything anew from a list of s.
func compare(t *rapid.T, s store.Store, m *Mirror) {
	t.Helper()
	var initial []store.Event
	for _, k := range model.Kinds {
		os, _, err := s.List(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			initial = append(initial, store.Event{Object: o})
		}
	}
	fresh := New(here)
	fresh.live = m.live
	want, _ := fresh.next(fresh.Snapshot(), fresh.reset(initial), m.Snapshot().Revision)
	got := m.Snapshot()
	if !reflect.DeepEqual(got.Ports, want.Ports) || !reflect.DeepEqual(got.Bridges, want.Bridges) || !reflect.DeepEqual(got.Hosts, want.Hosts) {
		t.Fatalf("hosts, ports or bridges have drifted:\n%+v\n%+v\nwant\n%+v\n%+v", got.Ports, got.Bridges, want.Ports, want.Bridges)
	}
	forget := func(groups map[uuid.UUID]*view.SecurityGroup) { // counters are not part of the state
		for _, g := range groups {
			for _, rules := range [][]view.Rule{g.Ingress.Rules, g.Egress.Rules} {
				for i := range rules {
					rules[i].Counters = nil
				}
			}
		}
	}
	forget(got.Security)
	forget(want.Security)
	if !reflect.DeepEqual(got.Security, want.Security) || !maps.EqualFunc(got.Groups, want.Groups, sameAddresses) {
		t.Fatalf("groups have drifted:\n%+v\n%+v\nwant\n%+v\n%+v", got.Security, got.Groups, want.Security, want.Groups)
	}
	if !reflect.DeepEqual(got.Balancers, want.Balancers) {
		t.Fatalf("load balancers have drifted:\n%+v\nwant\n%+v", got.Balancers, want.Balancers)
	}
	if !reflect.DeepEqual(m.routes, fresh.routes) || len(got.Routers) != len(want.Routers) {
		t.Fatalf("routes have drifted:\n%+v\nwant\n%+v", m.routes, fresh.routes)
	}
	for id, r := range want.Routers {
		if !sameRouter(r, got.Router(id)) {
			t.Fatalf("router %+v, want %+v", got.Router(id), r)
		}
	}
	// A second reading of the same state changes nothing.
	if again, tags := m.next(got, m.reset(initial), got.Revision); len(tags) > 0 || !reflect.DeepEqual(again, got) {
		t.Fatalf("the same state again changes %v", tags)
	}
}

// sameAddresses compares groups without what looks addresses up in them: that can be another one by how it came about (view.TestNextAddressGroup).
func sameAddresses(a, b *view.AddressGroup) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses)
}

// mustTagBalancer demands tags for what connections to a load balancer depend on.
func mustTagBalancer(t *rapid.T, tags []tag.Tag, id uuid.UUID, was, is *view.LoadBalancer) {
	t.Helper()
	mustTag(t, tags, !sameBalancer(was, is), tag.Tag{Kind: tag.Balancer, ID: id})
	a, b := servers(was), servers(is)
	mustTag(t, tags, !reflect.DeepEqual(a, b), tag.Tag{Kind: tag.Members, ID: id})
	differs := map[tag.Tag]bool{}
	for k := range union(a, b) {
		_, had := a[k]
		_, has := b[k]
		at := tag.OfMember(id, k.addr, k.port)
		differs[at] = differs[at] || had != has
	}
	for at, d := range differs {
		mustTag(t, tags, d, at)
	}
}

// mustTagMembers demands a tag for each address that came or went, or one for all.
func mustTagMembers(t *rapid.T, tags []tag.Tag, group uuid.UUID, was, is *view.AddressGroup) {
	t.Helper()
	if slices.Contains(tags, tag.Tag{Kind: tag.Group, ID: group}) {
		return
	}
	for n := range byte(16) {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, n}), netip.AddrFrom4([4]byte{10, 9, 0, n})} {
			mustTag(t, tags, was.Contains(a) != is.Contains(a), tag.Tag{Kind: tag.Group, ID: group, Addr: match.AddrFrom(a)})
		}
	}
}

func randomOp(t *rapid.T, bridges, routers []uuid.UUID) store.Op {
	ports := []uuid.UUID{vm1, vm2, spare, up, lan, wan, id(17), id(18)}
	pid := rapid.SampledFrom(ports).Draw(t, "port")
	verb := rapid.SampledFrom([]store.Verb{store.Create, store.Replace, store.Replace, store.Delete}).Draw(t, "verb")
	var o model.Object
	switch rapid.IntRange(0, 14).Draw(t, "kind") {
	case 11, 12:
		o = randomBalancer(t)
	case 13:
		m := &model.Mirror{Meta: model.Meta{ID: rapid.SampledFrom([]uuid.UUID{id(51), id(52)}).Draw(t, "mirror")}, ToPortID: spare,
			BeforeFilters: rapid.Bool().Draw(t, "before")}
		switch rapid.IntRange(0, 2).Draw(t, "of") {
		case 0:
			m.PortID = pid
		case 1:
			m.BridgeID = br
		default:
			m.RouterID = rt
		}
		o = m
	case 14:
		o = &model.QoSPolicy{Meta: model.Meta{ID: id(50)}, Egress: model.BandwidthLimit{MaxKbps: rapid.Uint32Range(0, 2).Draw(t, "kbps")}}
	case 10:
		n := rapid.IntRange(0, 2).Draw(t, "which host")
		o = &model.Host{Meta: model.Meta{ID: []uuid.UUID{here, there, id(41)}[n]}}
		for _, zone := range []uuid.UUID{id(43), id(44)} {
			if rapid.Bool().Draw(t, "in zone") {
				end := model.TunnelEnd{ZoneID: zone, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + n)})}
				o.(*model.Host).Tunnels = append(o.(*model.Host).Tunnels, end)
			}
		}
	case 8:
		o = &model.SecurityGroup{Meta: model.Meta{ID: rapid.SampledFrom(securityGroups).Draw(t, "group"), Name: rapid.SampledFrom([]string{"default", "a", ""}).Draw(t, "name")}}
	case 9:
		o = &model.SecurityGroupRule{Meta: model.Meta{ID: rapid.SampledFrom([]uuid.UUID{id(47), id(48)}).Draw(t, "rule")},
			GroupID: rapid.SampledFrom(securityGroups).Draw(t, "of"), RemoteGroupID: rapid.SampledFrom(securityGroups).Draw(t, "remote"),
			Direction: rapid.SampledFrom([]model.Direction{model.Ingress, model.Egress}).Draw(t, "direction")}
	case 7:
		o = &model.Subnet{Meta: model.Meta{ID: rapid.SampledFrom([]uuid.UUID{id(30), id(31)}).Draw(t, "subnet")}, BridgeID: br, CIDR: pfx("fdff::/64")[0],
			MTU: rapid.IntRange(1400, 1402).Draw(t, "mtu"), EnableDHCP: rapid.Bool().Draw(t, "dhcp")}
		if o.GetMeta().ID == id(31) {
			o.(*model.Subnet).CIDR = pfx("10.0.0.0/24")[0]
		}
	case 0:
		o = &model.Bridge{Meta: model.Meta{ID: rapid.SampledFrom(bridges).Draw(t, "bridge")}, AdminStateUp: rapid.Bool().Draw(t, "up")}
	case 1:
		o = &model.Router{Meta: model.Meta{ID: rapid.SampledFrom(routers).Draw(t, "router")}, AdminStateUp: rapid.Bool().Draw(t, "up")}
	case 2:
		o = &model.Route{Meta: model.Meta{ID: def}, RouterID: rt, Destination: pfx("0.0.0.0/0")[0], NextHop: model.NextHopPort, PortID: wan}
	case 3:
		o = binding(pid, rapid.SampledFrom([]uuid.UUID{here, there}).Draw(t, "host"), "tap"+string('a'+rune(pid[15]%26)))
	default:
		p := &model.Port{Meta: model.Meta{ID: pid}, AdminStateUp: rapid.Bool().Draw(t, "up")}
		n := pid[15] - 10
		if pid == lan || pid == wan || pid == id(17) {
			p.RouterID = rt // a port cannot move: to try others would only be refused
			p.Addresses = subnets(n)[:rapid.IntRange(0, 2).Draw(t, "addresses")]
		} else {
			p.BridgeID = br
			if rapid.IntRange(0, 2).Draw(t, "limited") == 0 {
				p.QoSPolicyID = id(50)
			}
			if rapid.Bool().Draw(t, "mac") {
				p.MAC = match.MAC{0x52, 0x54, 0, 0, rapid.Byte().Draw(t, "byte") & 1, n}
				secure(t, p, n)
			}
		}
		switch usual := map[uuid.UUID]uuid.UUID{lan: up, up: lan, id(17): id(18), id(18): id(17)}; rapid.IntRange(0, 3).Draw(t, "peered") {
		case 0:
		case 1:
			p.PeerID = rapid.SampledFrom(ports).Draw(t, "peer")
		default: // mostly what is so already, and other fields change
			p.PeerID = usual[pid]
		}
		o = p
	}
	return store.Op{Verb: verb, Object: o}
}

// randomBalancer draws a load balancer, a pool or a member.
func randomBalancer(t *rapid.T) model.Object {
	pools := []uuid.UUID{id(50), id(51)}
	pool := rapid.SampledFrom(pools).Draw(t, "pool")
	meta := func(ids ...uuid.UUID) model.Meta { return model.Meta{ID: rapid.SampledFrom(ids).Draw(t, "id")} }
	switch rapid.IntRange(0, 2).Draw(t, "which") {
	case 0:
		return &model.Pool{Meta: meta(pools...), SessionPersistence: rapid.SampledFrom([]model.Persistence{"", model.PersistenceSourceIP}).Draw(t, "persistence")}
	case 1:
		m := &model.PoolMember{Meta: meta(id(52), id(53), id(54)), PoolID: pool, Port: 80, AdminStateUp: rapid.Bool().Draw(t, "up"),
			Weight: rapid.IntRange(0, 2).Draw(t, "weight")}
		m.Address = netip.AddrFrom4([4]byte{10, 7, 0, rapid.Byte().Draw(t, "address")&3 + 1})
		return m
	}
	l := &model.LoadBalancer{Meta: meta(id(55), id(56)), RouterID: rt, AdminStateUp: rapid.Bool().Draw(t, "up")}
	l.Address = netip.AddrFrom4([4]byte{10, rapid.SampledFrom([]byte{lan[15] - 10, 77}).Draw(t, "link"), 0, l.ID[15]})
	for i := range rapid.IntRange(0, 2).Draw(t, "listeners") {
		l.Listeners = append(l.Listeners, model.Listener{Protocol: 6, Port: uint16(80 + i), PoolID: pool})
	}
	return l
}

var securityGroups = []uuid.UUID{id(45), id(46)}

// secure draws the groups of a VM's port, and what it brings to them.
func secure(t *rapid.T, p *model.Port, n byte) {
	if p.PortSecurity = rapid.Bool().Draw(t, "secure"); !p.PortSecurity {
		return
	}
	if rapid.Bool().Draw(t, "address") {
		p.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 32)}
	}
	if rapid.Bool().Draw(t, "pair") {
		p.AllowedAddressPairs = []model.AddressPair{{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, n}), 32)}}
	}
	if rapid.Bool().Draw(t, "explicit") {
		p.SecurityGroups = append([]uuid.UUID{}, securityGroups[:rapid.IntRange(0, 2).Draw(t, "groups")]...)
	}
}

// subnets are those of router port n alone, so that they never overlap.
func subnets(n byte) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 1}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: n, 15: 1}), 64),
	}
}
