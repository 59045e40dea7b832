package sim_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// condition draws a valid condition of few fields, from the alphabets of gen.
func condition(t *rapid.T) model.Condition {
	m := model.Condition{Invert: rapid.Bool().Draw(t, "invert")}
	prefixes := []string{"10.0.1.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd01::/64", "fd02::5/128", "::/0", "8.8.8.8/32"}
	number := func(most uint16) *model.Range {
		from := pick(t, "from", uint16(0), 1, 8, 80)
		return &model.Range{From: min(from, most), To: min(from+pick(t, "width", uint16(0), 60), most)}
	}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		switch f := model.MatchField(1) << rapid.IntRange(0, 24).Draw(t, "field"); f {
		case model.MatchInPorts:
			m.InPorts = []uuid.UUID{pathtest.ID(pick(t, "in", "va", "vc", "r:a"))}
		case model.MatchOutPorts:
			m.OutPorts = []uuid.UUID{pathtest.ID(pick(t, "out", "vb", "va", "r:b"))}
		case model.MatchInPortGroup:
			m.InPortGroup = pathtest.ID(pick(t, "group", "vms", "none"))
		case model.MatchOutPortGroup:
			m.OutPortGroup = pathtest.ID(pick(t, "group", "vms", "none"))
		case model.MatchPortGroup:
			m.PortGroup = pathtest.ID(pick(t, "group", "vms", "none"))
		case model.MatchTraversed:
			m.Traversed = pathtest.ID(pick(t, "device", "a", "r", "b"))
		case model.MatchEthType:
			m.EthType = pick(t, "type", uint16(0x0800), 0x86dd, 0x0806, 0x88b5)
		case model.MatchEthSrc:
			m.EthSrc = model.MACMatch{Addr: match.MAC{0x02, 5: 0x0a}, Mask: pick(t, "mask", model.FullMAC, match.MAC{0xff})}
			m.EthSrc.Addr[5] &= m.EthSrc.Mask[5]
		case model.MatchEthDst:
			m.EthDst = model.MACMatch{Addr: match.MAC{0x01}, Mask: match.MAC{0x01}}
		case model.MatchVLAN:
			m.VLAN = 7
		case model.MatchNoVLAN:
			m.NoVLAN = true
		case model.MatchOriginalDst:
			m.OriginalDst = netip.MustParsePrefix(pick(t, "original", prefixes...))
		case model.MatchDstRewritten:
			m.DstRewritten = true
		case model.MatchTOS:
			tos := pick(t, "tos", uint8(0), 8)
			m.TOS = &tos
		case model.MatchProto, model.MatchSrcPorts, model.MatchDstPorts:
			m.Proto, m.ICMPTypes, m.ICMPCodes = pick(t, "proto", uint8(6), 17), nil, nil
			if f == model.MatchSrcPorts {
				m.SrcPorts = number(65535)
			} else if f == model.MatchDstPorts {
				m.DstPorts = number(65535)
			}
		case model.MatchICMPTypes, model.MatchICMPCodes:
			m.Proto, m.SrcPorts, m.DstPorts = pick(t, "proto", uint8(1), 58), nil, nil
			m.ICMPTypes = number(255)
			if f == model.MatchICMPCodes {
				m.ICMPCodes = number(255)
			}
		case model.MatchSrc:
			m.Src = netip.MustParsePrefix(pick(t, "src", prefixes...))
		case model.MatchDst:
			m.Dst = netip.MustParsePrefix(pick(t, "dst", prefixes...))
		case model.MatchSrcGroup:
			m.SrcGroup = pathtest.ID(pick(t, "group", "some", "missing"))
		case model.MatchDstGroup:
			m.DstGroup = pathtest.ID(pick(t, "group", "some", "missing"))
		case model.MatchQuotedSrc:
			m.QuotedSrc = netip.MustParsePrefix(pick(t, "quoted", prefixes...))
		case model.MatchQuotedDst:
			m.QuotedDst = netip.MustParsePrefix(pick(t, "quoted", prefixes...))
		}
	}
	m.Not = m.Given() & model.MatchField(rapid.Uint32().Draw(t, "not"))
	if m.SrcPorts != nil || m.DstPorts != nil || m.ICMPTypes != nil {
		m.Not &^= model.MatchProto
		m.Fragment = pick(t, "fragment", model.FragmentFollow, model.FragmentFollow, model.FragmentHeader, model.FragmentUnfragmented)
	} else {
		m.Fragment = pick(t, "fragment", model.FragmentAny, model.FragmentAny, model.FragmentNonheader, model.FragmentUnfragmented)
		if m.Fragment != model.FragmentAny && rapid.Bool().Draw(t, "not fragment") {
			m.Not |= model.MatchFragment
		}
	}
	return m
}

// rules are chains as the model has them, for the oracle; each may jump to later ones only.
type rules [][]model.Rule

func chainID(i int) uuid.UUID { return pathtest.ID(fmt.Sprint("chain ", i)) }

// randomChains draws chains and puts them into the network.
func randomChains(t *rapid.T, topo *pathtest.Topology, n int) rules {
	rs := make(rules, n)
	for i := range rs {
		ch := &view.Chain{ID: chainID(i), Name: fmt.Sprint(i)}
		for p := range rapid.IntRange(0, 4).Draw(t, "rules") {
			verdict := pick(t, "verdict", view.VerdictContinue, view.VerdictAccept, view.VerdictDrop, view.VerdictReject, view.VerdictJump, view.VerdictReturn)
			r := model.Rule{Position: p, Action: model.RuleAction(verdict.String()), Match: condition(t)}
			if verdict == view.VerdictJump {
				if i == n-1 {
					continue
				}
				r.JumpID = chainID(rapid.IntRange(i+1, n-1).Draw(t, "jump"))
			}
			rs[i] = append(rs[i], r)
			ch.Rules = append(ch.Rules, view.Rule{Position: p, Match: view.NewCondition(&r.Match), Verdict: verdict, Jump: r.JumpID})
		}
		topo.Chains[ch.ID] = ch
	}
	return rs
}

// oracle evaluates rules in the most obvious way.
type oracle struct {
	rules       rules
	topo        *pathtest.Topology
	v           packet.View
	first       match.Key // of the first fragment of its datagram, or its own
	in, out     *view.Port
	traversed   []string
	group       []netip.Prefix
	originGroup []uuid.UUID
}

// run gives accept, drop, reject, or return at the end of the chain.
func (o *oracle) run(chain int) model.RuleAction {
	for _, r := range o.rules[chain] {
		if !o.fits(&r.Match) {
			continue
		}
		switch r.Action {
		case model.RuleContinue:
		case model.RuleJump:
			for i := range o.rules {
				if chainID(i) == r.JumpID {
					if a := o.run(i); a != model.RuleReturn {
						return a
					}
				}
			}
		default:
			return r.Action
		}
	}
	return model.RuleReturn
}

func (o *oracle) fits(m *model.Condition) bool {
	k := &o.v.Key
	piece := map[model.Fragment]bool{
		model.FragmentAny: true, model.FragmentFollow: true, model.FragmentHeader: k.Frag != match.FragLater, model.FragmentNonheader: k.Frag == match.FragLater,
		model.FragmentUnfragmented: k.Frag == match.FragNone,
	}
	if piece[m.Fragment] == (m.Not&model.MatchFragment != 0) {
		return false
	}
	ip := k.EthType == 0x0800 || k.EthType == 0x86dd
	addrs := ip || k.EthType == 0x0806
	quoted, isError := packet.View{}, false
	if o.v.IsICMPError() {
		quoted, isError = o.v.Quoted()
	}
	known := k.Frag != match.FragLater || m.Fragment == model.FragmentFollow
	hasPorts := ip && (k.Proto == 6 || k.Proto == 17) && known
	hasICMP := ip && (k.Proto == 1 || k.Proto == 58) && known
	mac := func(a match.MAC, m model.MACMatch) bool {
		for i := range a {
			if a[i]&m.Mask[i] != m.Addr[i] {
				return false
			}
		}
		return true
	}
	in := func(p netip.Prefix, a match.Addr) bool { return p.Contains(a.Netip()) }
	group := func(id uuid.UUID, a match.Addr) bool {
		return id == pathtest.ID("some") && slices.ContainsFunc(o.group, func(p netip.Prefix) bool { return in(p, a) })
	}
	within := func(r *model.Range, x uint16) bool { return r != nil && r.From <= x && x <= r.To }
	all := true
	for f, fits := range map[model.MatchField]bool{
		model.MatchInPorts:      slices.Contains(m.InPorts, o.in.ID),
		model.MatchOutPorts:     o.out != nil && slices.Contains(m.OutPorts, o.out.ID),
		model.MatchInPortGroup:  slices.Contains(o.in.Groups, m.InPortGroup),
		model.MatchOutPortGroup: o.out != nil && slices.Contains(o.out.Groups, m.OutPortGroup),
		model.MatchPortGroup:    slices.Contains(o.originGroup, m.PortGroup),
		model.MatchTraversed: slices.ContainsFunc(o.traversed, func(d string) bool {
			return m.Traversed == pathtest.ID(d)
		}),
		model.MatchEthType: k.EthType == m.EthType,
		model.MatchEthSrc:  mac(k.EthSrc, m.EthSrc),
		model.MatchEthDst:  mac(k.EthDst, m.EthDst),
		model.MatchVLAN:    k.VLAN != 0 && k.VLAN&0xfff == m.VLAN,
		model.MatchNoVLAN:  k.VLAN == 0,
		// Nothing is translated here.
		model.MatchOriginalDst:  addrs && m.OriginalDst.IsValid() && in(m.OriginalDst, k.Dst),
		model.MatchDstRewritten: false,
		model.MatchTOS:          ip && m.TOS != nil && k.TOS == *m.TOS,
		model.MatchProto:        ip && k.Proto == m.Proto,
		model.MatchSrc:          addrs && m.Src.IsValid() && in(m.Src, k.Src),
		model.MatchDst:          addrs && m.Dst.IsValid() && in(m.Dst, k.Dst),
		model.MatchSrcGroup:     addrs && group(m.SrcGroup, k.Src),
		model.MatchDstGroup:     addrs && group(m.DstGroup, k.Dst),
		model.MatchSrcPorts:     hasPorts && within(m.SrcPorts, o.first.SrcPort),
		model.MatchDstPorts:     hasPorts && within(m.DstPorts, o.first.DstPort),
		model.MatchICMPTypes:    hasICMP && within(m.ICMPTypes, o.first.SrcPort>>8),
		model.MatchICMPCodes:    hasICMP && within(m.ICMPCodes, o.first.SrcPort&0xff),
		model.MatchQuotedSrc:    isError && m.QuotedSrc.IsValid() && in(m.QuotedSrc, quoted.Key.Src),
		model.MatchQuotedDst:    isError && m.QuotedDst.IsValid() && in(m.QuotedDst, quoted.Key.Dst),
	} {
		if m.Given()&f != 0 && fits == (m.Not&f != 0) {
			all = false
		}
	}
	return all != m.Invert
}

const filtered = `
bridge a
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb a 02:00:00:00:00:0b 10.0.2.5 fd02::5
vm vc a
group some 10.0.1.0/24 fd02::5 8.8.8.8
member vms va vc
`

// fragment makes some IP packets fragments, as the kernel's parser would see them.
func fragment(t *rapid.T, v *packet.View) {
	if !v.Is4() && !v.Is6() {
		return
	}
	switch v.Key.Frag = pick(t, "frag", match.FragNone, match.FragNone, match.FragFirst, match.FragLater); v.Key.Frag {
	case match.FragLater:
		v.Key.SrcPort, v.Key.DstPort, v.L4 = 0, 0, 0
	}
}

// TestRulesAgainstOracle holds random packets against random chains, at the ingress of a port and at the egress of another.
func TestRulesAgainstOracle(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		topo := pathtest.MustParse(filtered)
		o := oracle{rules: randomChains(t, topo, 3), topo: topo}
		for _, p := range topo.Groups[pathtest.ID("some")].Addresses {
			o.group = append(o.group, p)
		}
		va, vb := topo.Ports[pathtest.ID("va")], topo.Ports[pathtest.ID("vb")]
		o.in, o.originGroup = va, va.Groups
		if rapid.Bool().Draw(t, "egress") {
			o.out, o.traversed, vb.Outbound = vb, []string{"a"}, chainID(0)
		} else {
			va.Inbound = chainID(0)
		}
		var c sim.Context
		for range 30 {
			in := pathtest.Injection{Port: va.ID, View: gen{t, pathtest.MustParse(rich)}.view()}
			if in.View.Key.EthSrc.IsMulticast() {
				continue
			}
			if o.out != nil {
				in.View.Key.EthDst = vb.MAC
			}
			whole := in
			whole.View.Key.Frag, o.first = match.FragFirst, in.View.Key
			topo.State.Remember(&whole)
			fragment(t, &in.View)
			o.v = in.View
			topo.Simulate(&c, &in)
			if c.Result == sim.ResultConsumed || c.Reason == drop.MulticastSrc || c.Reason == drop.Hairpin {
				if o.out != nil {
					continue // the bridge has answered, or the sender is where vb is
				}
			}
			want := o.run(0)
			got := model.RuleReturn
			switch c.Reason {
			case drop.FilterDrop:
				got = model.RuleDrop
			case drop.FilterReject:
				got = model.RuleReject
			}
			if want == model.RuleAccept {
				want = model.RuleReturn
			}
			seen[string(want)]++
			if got != want {
				t.Fatalf("%v\n%+v\ngot %s, want %s", c.Reason, in.View.Key, got, want)
			}
		}
	})
	for _, want := range []string{"drop", "reject", "return"} {
		if seen[want] == 0 && !testing.Short() { // few packets may miss it
			t.Errorf("no packet ended as %q: the generator has become too narrow", want)
		}
	}
	t.Log(seen)
}

// TestMaskIsSoundWithFilters: what a flow repeats is right for all packets that match it, whatever the rules have read.
func TestMaskIsSoundWithFilters(t *testing.T) {
	var a, b sim.Context
	rapid.Check(t, func(t *rapid.T) {
		topo := pathtest.MustParse(rich + "group some 10.0.1.0/24 fd02::5\nmember vms va vb\n")
		randomChains(t, topo, 6)
		topo.Ports[pathtest.ID("va")].Inbound = chainID(0)
		topo.Ports[pathtest.ID("vb")].Outbound = chainID(1)
		topo.Ports[pathtest.ID("r:b")].Outbound = chainID(2)
		topo.Bridges[pathtest.ID("a")].Pre, topo.Bridges[pathtest.ID("a")].Post = chainID(3), chainID(4)
		topo.Routers[pathtest.ID("r")].Pre, topo.Routers[pathtest.ID("r")].Post = chainID(5), chainID(2)
		for range 50 {
			g := gen{t, topo}
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "va", "vc", "vb")), View: g.view()}
			topo.State.Remember(&in)
			topo.Simulate(&a, &in)
			if a.Result != sim.ResultConsumed && a.Result != sim.ResultNotYet && !a.UserSpace {
				other := g.view()
				checkTwin(t, topo, &a, &b, in, mutate(in.View, other, a.Mask))
			}
		}
	})
}

// TestChainsThatMultiply ends what doubles at each level.
func TestChainsThatMultiply(t *testing.T) {
	text := filtered + "filter va in c0\n"
	for i := range 30 {
		text += fmt.Sprintf("rule c%d jump:c%d\nrule c%d jump:c%d\n", i, i+1, i, i+1)
	}
	topo := pathtest.MustParse(text)
	in := topo.MustInject("va udp eth=va>vb ip=10.0.1.5>10.0.2.5 ports=1>2")
	var c sim.Context
	topo.Simulate(&c, &in)
	if c.Result != sim.ResultErrorDrop || c.Reason != drop.FilterTooLong {
		t.Errorf("%s, %s", c.Result, c.Reason)
	}
}

// TestMaskIsSoundWithSecurity does the same for what secured ports look at.
func TestMaskIsSoundWithSecurity(t *testing.T) {
	topo := pathtest.MustParse(rich + "secure va\nsecure vb vb=10.0.0.0/8 va=fd02::5 vb=::/0\n")
	var a, b sim.Context
	seen := map[drop.Reason]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 100 {
			g := gen{t, topo}
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "vb")), View: g.view()}
			topo.State.Remember(&in)
			topo.Simulate(&a, &in)
			seen[a.Reason]++
			if a.Result != sim.ResultConsumed && a.Result != sim.ResultNotYet && !a.UserSpace {
				other := g.view()
				checkTwin(t, topo, &a, &b, in, mutate(in.View, other, a.Mask))
			}
		}
	})
	for _, want := range []drop.Reason{drop.None, drop.SpoofedMAC, drop.SpoofedIP, drop.SpoofedARP, drop.SpoofedND, drop.SpoofedType} {
		if seen[want] == 0 {
			t.Errorf("no packet ended as %q: the generator has become too narrow", want)
		}
	}
}
