package model

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// cloud is two tenants' networks and what the operators share with them.
func cloud(t *testing.T) *Graph {
	t.Helper()
	g := NewGraph()
	stage(t, g, "",
		create(&Bridge{Meta: Meta{ID: id(1), Name: "ext", Shared: true}}),
		create(&Chain{Meta: Meta{ID: id(2), Name: "standard", Shared: true}}),
		create(&Router{Meta: Meta{ID: id(3), Name: "edge", Shared: true}}),
		create(&Port{Meta: Meta{ID: id(4), Name: "uplink", Shared: true}, RouterID: id(3), Addresses: pfx("192.0.2.1/24")}),
		create(&Bridge{Meta: Meta{ID: id(5), Name: "backbone"}}))
	stage(t, g, "acme",
		create(&Bridge{Meta: Meta{ID: id(11), Name: "blue"}}),
		create(&Router{Meta: Meta{ID: id(12), Name: "gw"}}),
		create(&Port{Meta: Meta{ID: id(13), Name: "vm"}, BridgeID: id(11), MAC: mac(1)}),
		create(&Chain{Meta: Meta{ID: id(14), Name: "filter"}}),
		create(&PortGroup{Meta: Meta{ID: id(15), Name: "web"}}))
	stage(t, g, "beta", create(&Bridge{Meta: Meta{ID: id(21), Name: "blue"}})) // names are each tenant's own
	return g
}

func stage(t *testing.T, g *Graph, tenant string, ops ...[]Op) {
	t.Helper()
	if err := try(g, tenant, ops...); err != nil {
		t.Fatal(err)
	}
}

func try(g *Graph, tenant string, lists ...[]Op) error {
	ops := slices.Concat(lists...)
	for i := range ops {
		ops[i].Tenant = tenant
	}
	s, err := g.Stage(ops...)
	if err == nil {
		s.Commit(1)
	}
	return err
}

// TestOthersDoNotExist asks for the same with an id that others have and with one that nobody has: the answers may differ in
// the id alone.
func TestOthersDoNotExist(t *testing.T) {
	port := func(f func(*Port, uuid.UUID)) func(uuid.UUID) []Op {
		return func(other uuid.UUID) []Op {
			p := &Port{Meta: Meta{ID: id(100)}, BridgeID: id(21)}
			f(p, other)
			return create(p)
		}
	}
	for name, c := range map[string]struct {
		theirs uuid.UUID
		op     func(uuid.UUID) []Op
	}{
		"replace":      {id(11), func(u uuid.UUID) []Op { return replace(&Bridge{Meta: Meta{ID: u}}) }},
		"delete":       {id(11), func(u uuid.UUID) []Op { return remove(&Bridge{Meta: Meta{ID: u}}) }},
		"with a match": {id(11), func(u uuid.UUID) []Op { return []Op{{Verb: Delete, Object: &Bridge{Meta: Meta{ID: u}}, IfRevision: 1}} }},
		"host":         {id(50), func(u uuid.UUID) []Op { return remove(&Host{Meta: Meta{ID: u}}) }},
		"bridge":       {id(11), port(func(p *Port, u uuid.UUID) { p.BridgeID = u })},
		"router":       {id(12), port(func(p *Port, u uuid.UUID) { p.BridgeID, p.RouterID = uuid.Nil, u })},
		"peer":         {id(13), port(func(p *Port, u uuid.UUID) { p.PeerID = u })},
		"filter":       {id(14), port(func(p *Port, u uuid.UUID) { p.InboundFilterID = u })},
		"port group":   {id(15), port(func(p *Port, u uuid.UUID) { p.PortGroups = []uuid.UUID{u} })},
		"rule's chain": {id(14), func(u uuid.UUID) []Op {
			return create(&Rule{Meta: Meta{ID: id(100)}, ChainID: u, Position: 1, Action: RuleAccept})
		}},
		"floating IP": {id(13), func(u uuid.UUID) []Op { return create(&FloatingIP{Meta: Meta{ID: id(100)}, PortID: u}) }},
		"binding": {id(13), func(u uuid.UUID) []Op {
			return create(&Binding{Meta: Meta{ID: u, Tenant: "beta"}, PortID: u, HostID: id(50), Interface: "tap0"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := cloud(t)
			stage(t, g, "", create(&Host{Meta: Meta{ID: id(50), Name: "h1"}}))
			before, nobody := g.dump(), id(200)
			theirs, none := try(g, "beta", c.op(c.theirs)), try(g, "beta", c.op(nobody))
			if theirs == nil || none == nil {
				t.Fatalf("allowed: %v, %v", theirs, none)
			}
			if a, b := strings.ReplaceAll(theirs.Error(), c.theirs.String(), "ID"), strings.ReplaceAll(none.Error(), nobody.String(), "ID"); a != b {
				t.Errorf("the answers tell that it exists:\n%s\n%s", a, b)
			}
			if g.dump() != before {
				t.Error("something has changed")
			}
		})
	}
}

func TestShared(t *testing.T) {
	for name, c := range map[string]struct {
		op   []Op
		want string // in the error; "": none
	}{
		"port on a shared bridge":        {create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(1)}), ""},
		"a shared filter":                {create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(21), InboundFilterID: id(2)}), ""},
		"a link to a shared port":        {create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(21), PeerID: id(4)}), ""},
		"rule of a shared chain":         {create(&Rule{Meta: Meta{ID: id(100)}, ChainID: id(2), Position: 1, Action: RuleAccept}), "not yours to change"},
		"port of a shared router":        {create(&Port{Meta: Meta{ID: id(100)}, RouterID: id(3)}), "not yours to change"},
		"a shared bridge changed":        {replace(&Bridge{Meta: Meta{ID: id(1)}}), "not permitted"},
		"a shared bridge deleted":        {remove(&Bridge{Meta: Meta{ID: id(1)}}), "not permitted"},
		"sharing":                        {create(&Bridge{Meta: Meta{ID: id(100), Shared: true}}), "only an operator"},
		"in another's name":              {create(&Bridge{Meta: Meta{ID: id(100), Tenant: "acme"}}), "is not yours, beta"},
		"given away":                     {replace(&Bridge{Meta: Meta{ID: id(21), Tenant: "acme"}}), "cannot change"},
		"a host":                         {create(&Host{Meta: Meta{ID: id(100)}}), "belongs to the installation"},
		"the operators' name":            {create(&Bridge{Meta: Meta{ID: id(100), Name: "backbone"}}), ""},
		"the same name twice":            {create(&Bridge{Meta: Meta{ID: id(100), Name: "blue"}}), "has this name"},
		"the operators' private network": {create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(5)}), "no bridge"},
	} {
		t.Run(name, func(t *testing.T) {
			g := cloud(t)
			err := try(g, "beta", c.op)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if err == nil && g.Get(c.op[0].Object.Kind(), id(100)).GetMeta().Tenant != "beta" {
				t.Error("what a tenant creates is not its own")
			}
		})
	}
}

// TestNamesOfOthersStaySecret: what must be refused because of others does not say who they are.
func TestNamesOfOthersStaySecret(t *testing.T) {
	g := cloud(t)
	stage(t, g, "acme", create(&Port{Meta: Meta{ID: id(16), Name: "acme-secret"}, BridgeID: id(1), MAC: mac(9), Addresses: pfx("198.51.100.7/32")}))
	err := try(g, "beta", create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(1), MAC: mac(8), Addresses: pfx("198.51.100.7/32")}))
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), id(16).String()) {
		t.Errorf("taken address: %v", err)
	}
	stage(t, g, "", create(&Port{Meta: Meta{ID: id(17), Name: "probe-secret"}, BridgeID: id(21)})) // the operators' own, on beta's bridge
	var referenced *ReferenceError
	err = try(g, "beta", remove(&Bridge{Meta: Meta{ID: id(21)}}))
	if !errors.As(err, &referenced) || referenced.Others != 1 || strings.Contains(err.Error(), "secret") {
		t.Errorf("referred to by others: %v", err)
	}
	stage(t, g, "acme", replace(&Port{Meta: Meta{ID: id(16)}, BridgeID: id(1), PeerID: id(4)}))
	err = try(g, "beta", create(&Port{Meta: Meta{ID: id(100)}, BridgeID: id(21), PeerID: id(4)}))
	if err == nil || strings.Contains(err.Error(), id(16).String()) {
		t.Errorf("a shared port that another has taken: %v", err)
	}
}

// TestOperatorsReferences: what an operator has put on a tenant's object stays when the tenant changes it.
func TestOperatorsReferences(t *testing.T) {
	g := cloud(t)
	stage(t, g, "", create(&Chain{Meta: Meta{ID: id(6), Name: "quarantine"}}),
		replace(&Port{Meta: Meta{ID: id(13), Name: "vm"}, BridgeID: id(11), InboundFilterID: id(6)}))
	if got := g.Get(KindPort, id(13)).GetMeta().Tenant; got != "acme" {
		t.Errorf("an operator's change made it tenant %q's", got)
	}
	stage(t, g, "acme", replace(&Port{Meta: Meta{ID: id(13), Name: "vm2"}, BridgeID: id(11), InboundFilterID: id(6)}))
}

// TestEveryKindHasAPlace: a new kind must say what it is part of, or that it stands for itself.
func TestEveryKindHasAPlace(t *testing.T) {
	alone := []Kind{KindBridge, KindRouter, KindZone, KindHost, KindChain, KindPortGroup, KindAddressGroup, KindSecurityGroup, KindPool, KindQoSPolicy}
	parts := []Object{&Port{RouterID: id(1)}, &Subnet{BridgeID: id(1)}, &Route{RouterID: id(1)}, &Rule{ChainID: id(1)},
		&FloatingIP{PortID: id(1)}, &Binding{PortID: id(1)}, &SecurityGroupRule{GroupID: id(1)}, &LoadBalancer{RouterID: id(1)}, &PoolMember{PoolID: id(1)}, &Mirror{RouterID: id(1)}}
	placed := map[Kind]bool{}
	for _, k := range alone {
		placed[k] = true
	}
	for _, o := range parts {
		if _, ok := PartOf(o); !ok {
			t.Errorf("a %s is part of nothing", o.Kind())
		}
		placed[o.Kind()] = true
	}
	for _, k := range Kinds {
		if !placed[k] {
			t.Errorf("%s: say in PartOf what it is part of, so that tenants cannot add to what is only shared with them; else list it here", k)
		}
	}
}
