package model

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Ids of securityGraph's objects.
var sg1, sg2, sr1 = id(141), id(142), id(143)

// securityGraph is policyGraph with two groups, the default one and web, in which is vm1.
func securityGraph(t *testing.T) *Graph {
	t.Helper()
	g := policyGraph(t)
	p := Clone(g.Get(KindPort, vm1)).(*Port)
	p.MAC, p.PortSecurity, p.SecurityGroups = match.MAC{2, 1}, true, []uuid.UUID{sg2}
	port := uint16(80)
	s, err := g.Stage(append(create(
		&SecurityGroup{Meta: Meta{ID: sg1, Name: "default"}, Stateful: true}, &SecurityGroup{Meta: Meta{ID: sg2, Name: "web"}},
		&SecurityGroupRule{Meta: Meta{ID: sr1, Name: "http"}, GroupID: sg2, Direction: Ingress, Protocol: 6, PortMin: &port, PortMax: &port, RemoteGroupID: sg2},
	), replace(p)...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(3)
	return g
}

func TestSecurityGroupsRefused(t *testing.T) {
	rule := func(change func(*SecurityGroupRule)) []Op {
		r := &SecurityGroupRule{Meta: Meta{ID: id(150)}, GroupID: sg2, Direction: Ingress}
		change(r)
		return create(r)
	}
	n := func(x uint16) *uint16 { return &x }
	o := func(x uint8) *uint8 { return &x }
	port := func(change func(*Port)) func(*Graph) []Op {
		return func(g *Graph) []Op {
			p := Clone(g.Get(KindPort, vm1)).(*Port)
			change(p)
			return replace(p)
		}
	}
	drop := func(objects ...Object) (ops []Op) {
		for _, x := range objects {
			ops = append(ops, Op{Verb: Delete, Object: x})
		}
		return ops
	}
	implicit := func(g *Graph) []Op { // vm2 relies on the default group
		p := Clone(g.Get(KindPort, vm2)).(*Port)
		p.MAC, p.PortSecurity = match.MAC{2, 2}, true
		return replace(p)
	}
	for _, c := range []struct {
		name string
		ops  any // []Op or func(*Graph) []Op
		is   error
		text string
	}{
		{"no group", rule(func(r *SecurityGroupRule) { r.GroupID = uuid.Nil }), ErrInvalid, "security_group: is missing"},
		{"dangling group", rule(func(r *SecurityGroupRule) { r.GroupID = id(99) }), ErrInvalid, "security_group: no security_group"},
		{"direction", rule(func(r *SecurityGroupRule) { r.Direction = "inward" }), ErrInvalid, `direction: "inward" is none of ingress, egress`},
		{"ethertype", rule(func(r *SecurityGroupRule) { r.EtherType = "arp" }), ErrInvalid, `ethertype: "arp" is none of IPv4, IPv6`},
		{"ports without protocol", rule(func(r *SecurityGroupRule) { r.PortMin, r.PortMax = n(80), n(80) }), ErrInvalid, "port_range_min: needs protocol to be tcp"},
		{"ports of icmp", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = 1, n(8), n(0) }), ErrInvalid, "port_range_min: needs protocol"},
		{"impossible range", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = 6, n(90), n(80) }), ErrInvalid, "port_range_min: 90 is more than port_range_max 80"},
		{"half a range", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMin = 6, n(90) }), ErrInvalid, "port_range_max: is missing"},
		{"the other half", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMax = 6, n(90) }), ErrInvalid, "port_range_min: is missing"},
		{"port 0", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = 17, n(0), n(80) }), ErrInvalid, "port_range_min: 0 is no port"},
		{"type of tcp", rule(func(r *SecurityGroupRule) { r.Protocol, r.ICMPType = 6, o(8) }), ErrInvalid, "icmp_type: needs protocol to be icmp"},
		{"code without type", rule(func(r *SecurityGroupRule) { r.Protocol, r.ICMPCode = 1, o(0) }), ErrInvalid, "icmp_code: needs icmp_type"},
		{"icmp of IPv6", rule(func(r *SecurityGroupRule) { r.EtherType, r.Protocol = IPv6, 1 }), ErrInvalid, "protocol: icmp is of IPv4"},
		{"icmpv6 of IPv4", rule(func(r *SecurityGroupRule) { r.Protocol = 58 }), ErrInvalid, "protocol: icmpv6 is of IPv6"},
		{"host bits", rule(func(r *SecurityGroupRule) { r.RemotePrefix = pfx("10.0.0.1/8")[0] }), ErrInvalid, "remote_ip_prefix: 10.0.0.1/8 has bits"},
		{"another family", rule(func(r *SecurityGroupRule) { r.RemotePrefix = pfx("fd00::/8")[0] }), ErrInvalid, "remote_ip_prefix: fd00::/8 is not of ethertype IPv4"},
		{"two remotes", rule(func(r *SecurityGroupRule) { r.RemotePrefix, r.RemoteGroupID = pfx("10.0.0.0/8")[0], sg1 }), ErrInvalid,
			"remote_group: cannot be given together with remote_ip_prefix"},
		{"dangling remote", rule(func(r *SecurityGroupRule) { r.RemoteGroupID = id(99) }), ErrInvalid, "remote_group: no security group"},
		{"dangling addresses", rule(func(r *SecurityGroupRule) { r.RemoteAddressGroupID = sg1 }), ErrInvalid, "remote_address_group: no address group"},
		{"the same again", rule(func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax, r.RemoteGroupID = 6, n(80), n(80), sg2 }), ErrInvalid,
			"security_group: security_group_rule http of the same group says the same"},
		{"moved", func(g *Graph) []Op {
			r := Clone(g.Get(KindSecurityGroupRule, sr1)).(*SecurityGroupRule)
			r.GroupID = sg1
			return replace(r)
		}, ErrInvalid, "security_group: cannot change"},

		{"group with ports", drop(&SecurityGroup{Meta: Meta{ID: sg2}}, &SecurityGroupRule{Meta: Meta{ID: sr1}}), ErrReferenced, "security_group web: still referred to by port"},
		{"groups without security", port(func(p *Port) { p.PortSecurity = false }), ErrInvalid, "security_groups: need port_security"},
		{"dangling group of a port", port(func(p *Port) { p.SecurityGroups = []uuid.UUID{id(99)} }), ErrInvalid, "security_groups[0]: no security_group"},
		{"group of a port twice", port(func(p *Port) { p.SecurityGroups = []uuid.UUID{sg1, sg1} }), ErrInvalid, "security_groups[1]: security group"},
		{"default in use", func(g *Graph) []Op { return append(implicit(g), drop(&SecurityGroup{Meta: Meta{ID: sg1}})...) }, ErrReferenced,
			"security_group default: still referred to by port"},
		{"default renamed", func(g *Graph) []Op {
			return append(implicit(g), replace(&SecurityGroup{Meta: Meta{ID: sg1, Name: "other"}})...)
		}, ErrReferenced, "security_group default: still referred to by port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := securityGraph(t)
			before := g.dump()
			ops, ok := c.ops.([]Op)
			if !ok {
				ops = c.ops.(func(*Graph) []Op)(g)
			}
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

// TestSecurityGroupsAccepted: a rule's own group as the remote one, groups that name each other, a rule of everything, and another
// default group in place of the first are all right.
func TestSecurityGroupsAccepted(t *testing.T) {
	g := securityGraph(t)
	p := Clone(g.Get(KindPort, vm2)).(*Port)
	p.MAC, p.PortSecurity = match.MAC{2, 2}, true
	s, err := g.Stage(append(append(create(
		&SecurityGroupRule{Meta: Meta{ID: id(150)}, GroupID: sg1, Direction: Ingress, RemoteGroupID: sg1},
		&SecurityGroupRule{Meta: Meta{ID: id(151)}, GroupID: sg1, Direction: Ingress, RemoteGroupID: sg2},
		&SecurityGroupRule{Meta: Meta{ID: id(152)}, GroupID: sg2, Direction: Ingress, RemoteGroupID: sg1},
		&SecurityGroupRule{Meta: Meta{ID: id(153)}, GroupID: sg2, Direction: Egress},
		&SecurityGroupRule{Meta: Meta{ID: id(154)}, GroupID: sg2, Direction: Egress, EtherType: IPv6},
		&SecurityGroup{Meta: Meta{ID: id(155), Name: "default"}},
	), replace(p)...), replace(&SecurityGroup{Meta: Meta{ID: sg1, Name: "old"}})...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(4)
	if f := g.Get(KindSecurityGroupRule, id(153)).(*SecurityGroupRule).EtherType; f != IPv4 {
		t.Errorf("ethertype %q", f)
	}
	if d := g.Default(""); d == nil || d.ID != id(155) {
		t.Errorf("default %v", d)
	}
}

// TestDefaultIsEachTenantsOwn: a tenant's default group has that tenant's ports, and is kept by them alone.
func TestDefaultIsEachTenantsOwn(t *testing.T) {
	g := securityGraph(t)
	theirs := &SecurityGroup{Meta: Meta{ID: id(160), Name: DefaultGroup, Tenant: "acme"}}
	p := Clone(g.Get(KindPort, vm2)).(*Port)
	p.MAC, p.PortSecurity = match.MAC{2, 2}, true // an operator's, and in the operators' default group
	s, err := g.Stage(append(create(theirs), replace(p)...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(4)
	if a, b := g.Default(""), g.Default("acme"); a == nil || a.ID != sg1 || b == nil || b.ID != theirs.ID {
		t.Errorf("defaults %v and %v", a, b)
	}
	if s, err = g.Stage(Op{Verb: Delete, Object: theirs}); err != nil {
		t.Fatalf("no port of acme relies on it: %v", err)
	}
	s.Rollback()
	if _, err = g.Stage(Op{Verb: Delete, Object: &SecurityGroup{Meta: Meta{ID: sg1}}}); !errors.Is(err, ErrReferenced) {
		t.Errorf("deleted under a port: %v", err)
	}
}
