package model

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// in is the graph of what is in a scope.
func (x *Index) in(s Scope, g *Graph) *Graph {
	part := NewGraph()
	load := func(k Key) {
		if o := g.Get(k.Kind, k.ID); o != nil {
			part.Load(Clone(o))
		}
	}
	for k, bs := range x.of {
		if slices.ContainsFunc(bs, func(b Bundle) bool { return slices.Contains(s.Bundles, b) }) {
			load(k)
		}
	}
	for _, k := range s.Keys {
		load(k)
	}
	return part
}

// cloneOps are the same ops on objects of their own.
func cloneOps(ops []Op) []Op {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].Object = Clone(ops[i].Object)
	}
	return ops
}

// What a transaction's scope holds stages it as the whole graph does: with the same changes, the same plan for bundles, or the same refusal.
func TestScopeJudgesLikeTheWhole(t *testing.T) {
	pick := func(lo, hi int) *rapid.Generator[uuid.UUID] {
		return rapid.Map(rapid.IntRange(lo, hi), func(n int) uuid.UUID { return id(byte(n)) })
	}
	ports, hosts, zones := pick(11, 17), pick(31, 35), pick(41, 43)
	interfaces := rapid.SampledFrom([]string{"t0", "t1", "t2", "t3", "no/name"})
	addrs := rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("224.0.0.1")})
	object := rapid.Custom(func(t *rapid.T) Object {
		if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			h := &Host{Meta: Meta{ID: hosts.Draw(t, "host"), Name: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "name")}}
			for range rapid.IntRange(0, 2).Draw(t, "tunnels") {
				h.Tunnels = append(h.Tunnels, TunnelEnd{ZoneID: zones.Draw(t, "zone"), Address: addrs.Draw(t, "address")})
			}
			return h
		}
		b := &Binding{Meta: Meta{ID: ports.Draw(t, "port")}, HostID: hosts.Draw(t, "host"), Interface: interfaces.Draw(t, "interface")}
		b.PortID = b.ID
		switch rapid.IntRange(0, 12).Draw(t, "odd") {
		case 0:
			b.PortID = ports.Draw(t, "other")
		case 1:
			b.HostID = uuid.Nil
		case 2:
			b.FromID = hosts.Draw(t, "from")
		case 3:
			b.FromID = b.HostID
		case 4, 5, 6:
			b.Name = "named"
		case 7:
			b.Tenant = "acme"
		}
		return b
	})
	scoped, refusals := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		g := NewGraph()
		for _, o := range []Object{
			&Bridge{Meta: Meta{ID: id(1)}}, &Router{Meta: Meta{ID: id(3)}}, &SecurityGroup{Meta: Meta{ID: id(5)}}, &PortGroup{Meta: Meta{ID: id(6)}},
			&TunnelZone{Meta: Meta{ID: id(41), Name: "z"}}, &TunnelZone{Meta: Meta{ID: id(42)}}, &Host{Meta: Meta{ID: id(31), Name: "a"}}, &Host{Meta: Meta{ID: id(32)}},
			&Port{Meta: Meta{ID: id(11)}, BridgeID: id(1), TunnelKey: 11, PortSecurity: true}, &Port{Meta: Meta{ID: id(12), Name: "p"}, RouterID: id(3), TunnelKey: 12},
			&Port{Meta: Meta{ID: id(13)}, BridgeID: id(1), TunnelKey: 13, SecurityGroups: []uuid.UUID{id(5)}, PortGroups: []uuid.UUID{id(6)}},
			&Port{Meta: Meta{ID: id(14)}, BridgeID: id(1), TunnelKey: 14, PeerID: id(15)}, &Port{Meta: Meta{ID: id(15)}, RouterID: id(3), TunnelKey: 15, PeerID: id(14)},
			&Port{Meta: Meta{ID: id(16)}, BridgeID: id(1), TunnelKey: 16},
		} {
			g.Load(o)
		}
		index := NewIndex(g)
		for rev := range int64(rapid.IntRange(1, 20).Draw(t, "txns")) {
			var ops []Op
			for range rapid.IntRange(1, 3).Draw(t, "ops") {
				o := object.Draw(t, "object")
				verb := Create // mostly what can succeed
				if g.Get(o.Kind(), o.GetMeta().ID) != nil {
					verb = rapid.SampledFrom([]Verb{Replace, Replace, Delete}).Draw(t, "verb")
				}
				if rapid.IntRange(0, 9).Draw(t, "wrong") == 0 {
					verb = Create + Delete - verb
				}
				ops = append(ops, Op{Verb: verb, Object: o, IfRevision: rapid.SampledFrom([]int64{0, 0, 0, rev}).Draw(t, "if revision")})
			}
			s, ok := ScopeOf(ops)
			var partErr error
			var changes []Change
			var plan []Placing
			if ok {
				scoped++
				part := index.in(s, g)
				was := NewIndex(part)
				var staged *Staged
				if staged, partErr = part.Stage(cloneOps(ops)...); partErr == nil {
					changes, plan = staged.Changes, was.Plan(part, staged.Changes)
				}
			}
			whole, err := g.Stage(ops...)
			if ok && fmt.Sprint(err) != fmt.Sprint(partErr) {
				t.Fatalf("the whole says %v, the part %v", err, partErr)
			}
			if err != nil {
				refusals++
				continue
			}
			wholePlan := index.Plan(g, whole.Changes)
			if ok {
				if d := cmp.Diff(whole.Changes, changes, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Fatalf("changes (-whole +part):\n%s", d)
				}
				if a, b := placings(wholePlan), placings(plan); a != b {
					t.Fatalf("the whole plans\n%sthe part\n%s", a, b)
				}
			}
			index.Apply(wholePlan)
			whole.Commit(rev + 1)
		}
	})
	t.Logf("%d transactions were judged by a part; %d of all were refused", scoped, refusals)
}

func placings(ps []Placing) (text string) {
	for _, p := range ps {
		text += fmt.Sprintf("%v %v %+v\n", p.Bundle, p.Key, p.Object)
	}
	return text
}
