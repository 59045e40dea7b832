package model

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func target(from, to string, ports *Range) []NATTarget {
	return []NATTarget{{netip.MustParseAddr(from), netip.MustParseAddr(to), ports}}
}

func dscp(n uint8) *uint8 { return &n }

// TestAlteringRulesRefused: what a rule does must be possible, and wholly said.
func TestAlteringRulesRefused(t *testing.T) {
	five := "10.0.0.5"
	for _, c := range []struct {
		name   string
		change func(*Rule)
		text   string
	}{
		{"dnat to nothing", func(r *Rule) { r.Action = RuleDNAT }, "targets: action dnat needs addresses"},
		{"targets of an accept", func(r *Rule) { r.Action, r.Targets = RuleAccept, target(five, five, nil) }, "targets: has no meaning with action accept"},
		{"targets of a reverse rule", func(r *Rule) { r.Action, r.Targets = RuleRevSNAT, target(five, five, nil) }, "targets: has no meaning"},
		{"then drop", func(r *Rule) { r.Action, r.Then, r.Targets = RuleDNAT, RuleDrop, target(five, five, nil) }, `then: "drop" is none of accept, continue, return`},
		{"then of a drop", func(r *Rule) { r.Action, r.Then = RuleDrop, RuleAccept }, "then: has no meaning with action drop"},
		{"other family", func(r *Rule) {
			r.Action, r.Match.Dst, r.Targets = RuleDNAT, pfx("fd00::/8")[0], target(five, five, nil)
		}, "targets[0].addresses: 10.0.0.5 is not of the family of the packets"},
		{"other family by protocol", func(r *Rule) { r.Action, r.Match.Proto, r.Targets = RuleSNAT, 58, target(five, five, nil) }, "is not of the family of the packets"},
		{"two families", func(r *Rule) {
			r.Action, r.Targets = RuleSNAT, append(target(five, five, nil), target("fd00::1", "fd00::1", nil)...)
		}, "targets[1].addresses: fd00::1 is not of the family of 10.0.0.5"},
		{"range of two families", func(r *Rule) { r.Action, r.Targets = RuleSNAT, target(five, "fd00::1", nil) }, "are of different families"},
		{"range backwards", func(r *Rule) { r.Action, r.Targets = RuleSNAT, target("10.0.0.6", five, nil) }, "10.0.0.6 comes after 10.0.0.5"},
		{"huge range", func(r *Rule) { r.Action, r.Targets = RuleSNAT, target("10.0.0.0", "10.1.0.0", nil) }, "are more than 65536 addresses"},
		{"huge IPv6 range", func(r *Rule) { r.Action, r.Targets = RuleSNAT, target("fd00::", "fd01::", nil) }, "are more than 65536 addresses"},
		{"multicast", func(r *Rule) { r.Action, r.Targets = RuleDNAT, target("224.0.0.1", "224.0.0.1", nil) }, "224.0.0.1 is a multicast address"},
		{"port without protocol", func(r *Rule) { r.Action, r.Targets = RuleDNAT, target(five, five, &Range{80, 80}) }, "targets[0].ports: need match.proto to be tcp, udp or sctp"},
		{"port of icmp", func(r *Rule) { r.Action, r.Match.Proto, r.Targets = RuleDNAT, 1, target(five, five, &Range{80, 80}) }, "need match.proto"},
		{"port of not tcp", func(r *Rule) {
			r.Action, r.Match.Proto, r.Match.Not, r.Targets = RuleDNAT, 6, MatchProto, target(five, five, &Range{80, 80})
		}, "need match.proto"},
		{"port 0", func(r *Rule) { r.Action, r.Targets = RuleSNAT, target(five, five, &Range{0, 80}) }, "targets[0].ports: 0-80 is not a range within 1 and 65535"},
		{"redirect to nothing", func(r *Rule) { r.Action = RuleRedirect }, "redirect.port: no port " + uuid.Nil.String()},
		{"redirect to a bridge", func(r *Rule) { r.Action, r.Redirect.PortID = RuleRedirect, br1 }, "redirect.port: no port"},
		{"redirect of an accept", func(r *Rule) { r.Action, r.Redirect.PortID = RuleAccept, vm1 }, "redirect: has no meaning"},
		{"push nothing", func(r *Rule) { r.Action = RulePushVLAN }, "vlan: 0 is not within 1 and 4094"},
		{"push 4095", func(r *Rule) { r.Action, r.VLAN = RulePushVLAN, 4095 }, "vlan: 4095 is not within 1 and 4094"},
		{"push a second tag", func(r *Rule) { r.Action, r.VLAN, r.Match.VLAN = RulePushVLAN, 5, 7 }, "match.vlan: tagged frames get no second tag"},
		{"pop no tag", func(r *Rule) { r.Action, r.Match.NoVLAN = RulePopVLAN, true }, "match.no_vlan: there is no tag"},
		{"vlan of a pop", func(r *Rule) { r.Action, r.VLAN = RulePopVLAN, 7 }, "vlan: has no meaning with action pop_vlan"},
		{"mark nothing", func(r *Rule) { r.Action = RuleSetDSCP }, "dscp: is missing"},
		{"mark 64", func(r *Rule) { r.Action, r.DSCP = RuleSetDSCP, dscp(64) }, "dscp: 64 is not within 0 and 63"},
		{"mark of an accept", func(r *Rule) { r.Action, r.DSCP = RuleAccept, dscp(0) }, "dscp: has no meaning with action accept"},
		{"inverted any fragment", func(r *Rule) { r.Match.Not = MatchFragment }, "match.not: [fragment]: inverts what is not there"},
		{"inverted header", func(r *Rule) {
			r.Match.Proto, r.Match.DstPorts, r.Match.Fragment, r.Match.Not = 6, &Range{80, 80}, FragmentHeader, MatchFragment
		}, "match.fragment: inverted"},
		{"inverted any connection", func(r *Rule) { r.Match.Not = MatchConnection }, "match.not: [connection]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := policyGraph(t)
			r := &Rule{Meta: Meta{ID: id(130)}, ChainID: ch1, Position: 20, Action: RuleDrop}
			c.change(r)
			if _, err := g.Stage(create(r)...); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v; want %q", err, c.text)
			}
		})
	}
}

func TestAlteringRulesAccepted(t *testing.T) {
	g := policyGraph(t)
	rule := func(n int, change func(*Rule)) *Rule {
		r := &Rule{Meta: Meta{ID: id(byte(130 + n))}, ChainID: ch1, Position: 20 + n}
		change(r)
		return r
	}
	s, err := g.Stage(create(
		rule(0, func(r *Rule) { r.Action, r.Targets = RuleSNAT, target("10.0.0.0", "10.0.255.255", &Range{1024, 65535}) }),
		rule(1, func(r *Rule) { r.Action, r.Then, r.Match.Not = RuleRevSNAT, RuleContinue, 0 }),
		rule(2, func(r *Rule) { r.Action, r.Redirect = RuleRedirect, Redirect{PortID: vm2, Egress: true} }),
		rule(3, func(r *Rule) { r.Action, r.VLAN, r.Match.VLAN, r.Match.Not = RulePushVLAN, 5, 7, MatchVLAN }),
		rule(4, func(r *Rule) { r.Action, r.Match.NoVLAN, r.Match.Not = RulePopVLAN, true, MatchNoVLAN }),
		rule(5, func(r *Rule) { r.Action, r.DSCP = RuleSetDSCP, dscp(0) }),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(3)
	check(t, g)
	if a, b := g.Get(KindRule, id(130)).(*Rule), g.Get(KindRule, id(131)).(*Rule); a.Then != RuleAccept || b.Then != RuleContinue {
		t.Errorf("then %q and %q", a.Then, b.Then)
	}
	if _, err := g.Stage(Op{Verb: Delete, Object: &Port{Meta: Meta{ID: vm2}}}); !errors.Is(err, ErrReferenced) {
		t.Errorf("a port that a rule redirects to can be deleted: %v", err)
	}
}

func TestPortVLANRefused(t *testing.T) {
	for _, c := range []struct {
		port uuid.UUID
		vlan uint16
		text string
	}{{vm1, 4095, "vlan: 4095 is not within 1 and 4094"}, {wan, 7, "vlan: is for ports of bridges"}} {
		g := policyGraph(t)
		p := Clone(g.Get(KindPort, c.port)).(*Port)
		p.VLAN = c.vlan
		if _, err := g.Stage(replace(p)...); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got %v; want %q", err, c.text)
		}
	}
}

// TestAddressesAreOfAVLAN: what is claimed on a bridge is claimed in one VLAN, also by the router behind an access port.
func TestAddressesAreOfAVLAN(t *testing.T) {
	g := sampleGraph(t)
	change := func(p uuid.UUID, vlan uint16) error {
		x := Clone(g.Get(KindPort, p)).(*Port)
		x.VLAN = vlan
		s, err := g.Stage(replace(x)...)
		if err == nil {
			s.Commit(3)
		}
		check(t, g)
		return err
	}
	twin := &Port{Meta: Meta{ID: id(99), Name: "twin"}, BridgeID: br1, VLAN: 7, MAC: mac(1), Addresses: pfx("10.0.0.11/32", "10.0.0.1/32")}
	s, err := g.Stage(create(twin)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	check(t, g)
	if err := change(uplink, 7); err == nil || !strings.Contains(err.Error(), "addresses[0]: 10.0.0.1 is already that of port twin") {
		t.Errorf("the router moves to the twin's VLAN: %v", err)
	}
	if err := change(vm1, 7); err == nil || !strings.Contains(err.Error(), "already that of port twin") {
		t.Errorf("a port moves to the twin's VLAN: %v", err)
	}
	if err := change(uplink, 8); err != nil {
		t.Error(err)
	}
	if err := change(id(99), 0); err == nil { // vm1 is there
		t.Error("the twin moves to vm1's VLAN")
	}
	if err := change(vm1, 8); err != nil {
		t.Error(err)
	}
	if err := change(id(99), 0); err != nil { // where the router was
		t.Error(err)
	}
}
