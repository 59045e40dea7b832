package model

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Ids of policyGraph's objects, after those of the sample.
var (
	ch1, ch2, ch3 = id(101), id(102), id(103)
	rl1           = id(111)
	pg1, ag1      = id(121), id(122)
)

// policyGraph is the sample with three chains: rule rl1 in ch1 jumps to ch2.
func policyGraph(t *testing.T) *Graph {
	t.Helper()
	g := sampleGraph(t)
	ops := create(
		&Chain{Meta: Meta{ID: ch1, Name: "one"}}, &Chain{Meta: Meta{ID: ch2, Name: "two"}}, &Chain{Meta: Meta{ID: ch3, Name: "three"}},
		&PortGroup{Meta: Meta{ID: pg1, Name: "vms"}}, &AddressGroup{Meta: Meta{ID: ag1, Name: "nets"}, Addresses: pfx("10.0.0.0/8", "fd00::1/128")},
		&Rule{Meta: Meta{ID: rl1, Name: "first"}, ChainID: ch1, Position: 10, Action: RuleJump, JumpID: ch2})
	s, err := g.Stage(ops...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	return g
}

func TestRulesRefused(t *testing.T) {
	rule := func(change func(*Rule)) []Op {
		r := &Rule{Meta: Meta{ID: id(130)}, ChainID: ch1, Position: 20, Action: RuleDrop}
		change(r)
		return create(r)
	}
	fits := func(change func(*Condition)) []Op { return rule(func(r *Rule) { change(&r.Match) }) }
	replaced := func(change func(*Port)) func(*Graph) []Op {
		return func(g *Graph) []Op {
			p := Clone(g.Get(KindPort, vm1)).(*Port)
			change(p)
			return replace(p)
		}
	}
	for _, c := range []struct {
		name string
		ops  any // []Op or func(*Graph) []Op
		is   error
		text string
	}{
		{"no chain", rule(func(r *Rule) { r.ChainID = uuid.Nil }), ErrInvalid, "chain: is missing"},
		{"dangling chain", rule(func(r *Rule) { r.ChainID = id(99) }), ErrInvalid, "chain: no chain"},
		{"position 0", rule(func(r *Rule) { r.Position = 0 }), ErrInvalid, "position: 0 is not within"},
		{"position taken", rule(func(r *Rule) { r.Position = 10 }), ErrInvalid, "position: 10 is already that of rule first"},
		{"action", rule(func(r *Rule) { r.Action = "explode" }), ErrInvalid, `action: "explode" is none`},
		{"jump nowhere", rule(func(r *Rule) { r.Action = RuleJump }), ErrInvalid, "jump: is missing"},
		{"jump without jump", rule(func(r *Rule) { r.JumpID = ch2 }), ErrInvalid, "jump: has no meaning"},
		{"jump to itself", rule(func(r *Rule) { r.Action, r.JumpID = RuleJump, ch1 }), ErrInvalid, "jump: chain one leads back"},
		{"loop of two", rule(func(r *Rule) { r.ChainID, r.Action, r.JumpID = ch2, RuleJump, ch1 }), ErrInvalid, "jump: chain one leads back"},
		{"loop within a transaction", append(
			rule(func(r *Rule) { r.ChainID, r.Action, r.JumpID = ch2, RuleJump, ch3 }),
			create(&Rule{Meta: Meta{ID: id(131)}, ChainID: ch3, Position: 1, Action: RuleJump, JumpID: ch1})...), ErrInvalid, "leads back"},
		{"moved rule", func(g *Graph) []Op {
			r := Clone(g.Get(KindRule, rl1)).(*Rule)
			r.ChainID = ch3
			return replace(r)
		}, ErrInvalid, "chain: cannot change"},

		{"ports without protocol", fits(func(m *Condition) { m.DstPorts = &Range{80, 80} }), ErrInvalid, "match.dst_ports: needs proto to be tcp"},
		{"ports of icmp", fits(func(m *Condition) { m.Proto, m.SrcPorts = 1, &Range{80, 80} }), ErrInvalid, "match.src_ports: needs proto"},
		{"ports of not tcp", fits(func(m *Condition) { m.Proto, m.Not, m.SrcPorts = 6, MatchProto, &Range{80, 80} }), ErrInvalid, "match.src_ports: needs proto"},
		{"types of tcp", fits(func(m *Condition) { m.Proto, m.ICMPTypes = 6, &Range{8, 8} }), ErrInvalid, "match.icmp_types: needs proto to be icmp"},
		{"empty range", fits(func(m *Condition) { m.Proto, m.DstPorts = 6, &Range{90, 80} }), ErrInvalid, "match.dst_ports: 90-80 is not a range"},
		{"type 256", fits(func(m *Condition) { m.Proto, m.ICMPTypes = 1, &Range{8, 256} }), ErrInvalid, "match.icmp_types: 8-256"},
		{"later fragments' ports", fits(func(m *Condition) { m.Proto, m.DstPorts, m.Fragment = 6, &Range{80, 80}, FragmentAny }), ErrInvalid, "match.fragment"},
		{"unknown connection state", fits(func(m *Condition) { m.Connection = "old" }), ErrInvalid, "match.connection: \"old\""},
		{"unknown fragment policy", fits(func(m *Condition) { m.Fragment = "some" }), ErrInvalid, "match.fragment: \"some\""},
		{"host bits", fits(func(m *Condition) { m.Src = netip.MustParsePrefix("10.0.0.1/8") }), ErrInvalid, "match.src: 10.0.0.1/8 has bits"},
		{"two families", fits(func(m *Condition) { m.Src, m.Dst = pfx("10.0.0.0/8")[0], pfx("fd00::/8")[0] }), ErrInvalid, "match.dst: fd00::/8 is not of the family of src"},
		{"type of another family", fits(func(m *Condition) { m.EthType, m.Src = 0x86dd, pfx("10.0.0.0/8")[0] }), ErrInvalid, "match.src: 10.0.0.0/8 is not of the family of eth_type"},
		{"inverts nothing", fits(func(m *Condition) { m.Not = MatchSrc }), ErrInvalid, "match.not: [src]"},
		{"mask", fits(func(m *Condition) { m.EthSrc = MACMatch{match.MAC{1, 2}, match.MAC{0xff}} }), ErrInvalid, "match.eth_src: "},
		{"vlan 4095", fits(func(m *Condition) { m.VLAN = 4095 }), ErrInvalid, "match.vlan"},
		{"vlan and none", fits(func(m *Condition) { m.VLAN, m.NoVLAN = 7, true }), ErrInvalid, "match.no_vlan"},
		{"dangling port", fits(func(m *Condition) { m.InPorts = []uuid.UUID{vm1, id(99)} }), ErrInvalid, "match.in_ports[1]: no port"},
		{"port twice", fits(func(m *Condition) { m.OutPorts = []uuid.UUID{vm1, vm1} }), ErrInvalid, "match.out_ports[1]: port"},
		{"dangling port group", fits(func(m *Condition) { m.PortGroup = ag1 }), ErrInvalid, "match.port_group: no port_group"},
		{"dangling address group", fits(func(m *Condition) { m.SrcGroup = pg1 }), ErrInvalid, "match.src_group: no address_group"},
		{"traversed nothing", fits(func(m *Condition) { m.Traversed = vm1 }), ErrInvalid, "match.traversed: no bridge or router"},

		{"group of host bits", create(&AddressGroup{Meta: Meta{ID: id(130)}, Addresses: pfx("10.0.0.1/8")}), ErrInvalid, "addresses[0]: 10.0.0.1/8 has bits"},
		{"group address twice", create(&AddressGroup{Meta: Meta{ID: id(130)}, Addresses: pfx("10.0.0.0/8", "10.0.0.0/8")}), ErrInvalid, "addresses[1]: 10.0.0.0/8 is there twice"},
		{"dangling filter", replaced(func(p *Port) { p.InboundFilterID = id(99) }), ErrInvalid, "inbound_filter: no chain"},
		{"dangling group of a port", replaced(func(p *Port) { p.PortGroups = []uuid.UUID{ag1} }), ErrInvalid, "port_groups[0]: no port_group"},
		{"group of a port twice", replaced(func(p *Port) { p.PortGroups = []uuid.UUID{pg1, pg1} }), ErrInvalid, "port_groups[1]: port group"},
		{"security of a router port", func(g *Graph) []Op {
			p := Clone(g.Get(KindPort, wan)).(*Port)
			p.PortSecurity = true
			return replace(p)
		}, ErrInvalid, "port_security: is for ports of bridges"},
		{"security without a MAC", replaced(func(p *Port) { p.PortSecurity, p.MAC = true, match.MAC{} }), ErrInvalid, "port_security: needs mac"},
		{"pairs without security", replaced(func(p *Port) { p.AllowedAddressPairs = []AddressPair{{Address: pfx("10.0.0.0/24")[0]}} }), ErrInvalid,
			"allowed_address_pairs: have no meaning"},
		{"pair of host bits", replaced(func(p *Port) {
			p.PortSecurity, p.AllowedAddressPairs = true, []AddressPair{{Address: pfx("10.0.0.1/24")[0]}}
		}), ErrInvalid, "allowed_address_pairs[0].address: 10.0.0.1/24 has bits"},
		{"pair twice", replaced(func(p *Port) {
			p.PortSecurity, p.AllowedAddressPairs = true, []AddressPair{{Address: pfx("10.0.0.0/24")[0]}, {Address: pfx("10.0.0.0/24")[0]}}
		}), ErrInvalid, "allowed_address_pairs[1]: is there twice"},

		{"chain with rules", []Op{{Verb: Delete, Object: &Chain{Meta: Meta{ID: ch1}}}}, ErrReferenced, "chain one: still referred to by rule first"},
		{"chain jumped to", []Op{{Verb: Delete, Object: &Chain{Meta: Meta{ID: ch2}}}}, ErrReferenced, "chain two: still referred to by rule first"},
		{"chain in use", func(g *Graph) []Op {
			b := Clone(g.Get(KindBridge, br1)).(*Bridge)
			b.PostForwardingID = ch3
			return append(replace(b), Op{Verb: Delete, Object: &Chain{Meta: Meta{ID: ch3}}})
		}, ErrInvalid, "post_forwarding: no chain"},
		{"port in a condition", append(fits(func(m *Condition) { m.InPorts = []uuid.UUID{vm2} }), Op{Verb: Delete, Object: &Port{Meta: Meta{ID: vm2}}}),
			ErrInvalid, "match.in_ports[0]: no port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := policyGraph(t)
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

func TestRulesAccepted(t *testing.T) {
	g := policyGraph(t)
	tos := uint8(0)
	s, err := g.Stage(create(
		&Rule{Meta: Meta{ID: id(130)}, ChainID: ch1, Position: 20, Action: RuleJump, JumpID: ch2}, // twice to the same is no loop
		&Rule{Meta: Meta{ID: id(131)}, ChainID: ch2, Position: 20, Action: RuleReject, Match: Condition{
			Invert: true, Not: MatchSrc | MatchTOS, Src: pfx("10.0.0.0/8")[0], Dst: pfx("fd00::/8")[0], TOS: &tos, Proto: 6, DstPorts: &Range{0, 65535}}},
	)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(3)
	check(t, g)
	if f := g.Get(KindRule, id(130)).(*Rule).Match.Fragment; f != FragmentAny {
		t.Errorf("fragment policy %q", f)
	}
	if f := g.Get(KindRule, id(131)).(*Rule).Match.Fragment; f != FragmentFollow {
		t.Errorf("fragment policy %q with ports", f)
	}
}
