package model

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Protocol numbers (IANA) that conditions know more about.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// badCondition says which field of a condition is wrong.
func (g *Graph) badCondition(m *Condition) (field, reason string) {
	given := m.Given()
	if none := m.Not &^ (given | m.outside()); none != 0 || m.Not >= matchEnd {
		return "not", fmt.Sprintf("%v: inverts what is not there", none.Names())
	}
	if field, reason := g.badMatchRefs(m); reason != "" {
		return field, reason
	}
	for _, x := range []struct {
		field string
		m     MACMatch
	}{{"eth_src", m.EthSrc}, {"eth_dst", m.EthDst}} {
		for i := range x.m.Addr {
			if x.m.Addr[i]&^x.m.Mask[i] != 0 {
				return x.field, fmt.Sprintf("%s has bits that are not in its mask %s", x.m.Addr, x.m.Mask)
			}
		}
	}
	if m.VLAN > 4094 {
		return "vlan", fmt.Sprintf("%d is not within 1 and 4094", m.VLAN)
	}
	if m.VLAN != 0 && m.NoVLAN && m.Not&(MatchVLAN|MatchNoVLAN) == 0 {
		return "no_vlan", "contradicts vlan"
	}
	if field, reason := badAddresses(m, given); reason != "" {
		return field, reason
	}
	return badTransport(m, given)
}

func (g *Graph) badMatchRefs(m *Condition) (field, reason string) {
	for _, x := range []struct {
		field string
		ids   []uuid.UUID
	}{{"in_ports", m.InPorts}, {"out_ports", m.OutPorts}} {
		if len(x.ids) > MaxRulePorts {
			return x.field, fmt.Sprintf("%d are more than %d: use a port group", len(x.ids), MaxRulePorts)
		}
		for i, id := range x.ids {
			if g.Get(KindPort, id) == nil {
				return fmt.Sprintf("%s[%d]", x.field, i), fmt.Sprintf("no port %s", id)
			}
			if slices.Index(x.ids, id) < i {
				return fmt.Sprintf("%s[%d]", x.field, i), fmt.Sprintf("port %s is there twice", id)
			}
		}
	}
	for _, x := range []struct {
		field string
		kind  Kind
		id    uuid.UUID
	}{
		{"in_port_group", KindPortGroup, m.InPortGroup}, {"out_port_group", KindPortGroup, m.OutPortGroup}, {"port_group", KindPortGroup, m.PortGroup},
		{"src_group", KindAddressGroup, m.SrcGroup}, {"dst_group", KindAddressGroup, m.DstGroup},
	} {
		if x.id != uuid.Nil && g.Get(x.kind, x.id) == nil {
			return x.field, fmt.Sprintf("no %s %s", x.kind, x.id)
		}
	}
	if m.Traversed != uuid.Nil && g.Get(KindBridge, m.Traversed) == nil && g.Get(KindRouter, m.Traversed) == nil {
		return "traversed", fmt.Sprintf("no bridge or router %s", m.Traversed)
	}
	return "", ""
}

// badAddresses checks prefixes, and that the families agree where a packet could fit none otherwise.
func badAddresses(m *Condition, given MatchField) (field, reason string) {
	families := map[bool]string{} // is it IPv4, and which field says so
	switch {
	case m.Not&(MatchEthType|MatchProto) != 0: // an inverted one says nothing
	case m.EthType == 0x0800 || m.Proto == protoICMP:
		families[true] = "eth_type and proto"
	case m.EthType == 0x86dd || m.Proto == protoICMPv6:
		families[false] = "eth_type and proto"
	}
	for _, x := range []struct {
		field string
		bit   MatchField
		p     netip.Prefix
	}{{"src", MatchSrc, m.Src}, {"dst", MatchDst, m.Dst}, {"original_dst", MatchOriginalDst, m.OriginalDst}, {"quoted_src", MatchQuotedSrc, m.QuotedSrc}, {"quoted_dst", MatchQuotedDst, m.QuotedDst}} {
		if given&x.bit == 0 {
			continue
		}
		if reason := badNetwork(x.p); reason != "" {
			return x.field, reason
		}
		if m.Not&x.bit != 0 {
			continue
		}
		if other, ok := families[!x.p.Addr().Is4()]; ok {
			return x.field, fmt.Sprintf("%s is not of the family of %s: nothing can fit both", x.p, other)
		}
		families[x.p.Addr().Is4()] = x.field
	}
	return "", ""
}

// badTransport checks what needs a protocol.
func badTransport(m *Condition, given MatchField) (field, reason string) {
	for _, x := range []struct {
		field  string
		bit    MatchField
		r      *Range
		most   uint16
		protos []uint8
		names  string
	}{
		{"src_ports", MatchSrcPorts, m.SrcPorts, 65535, []uint8{protoTCP, protoUDP, protoSCTP}, "tcp, udp or sctp"},
		{"dst_ports", MatchDstPorts, m.DstPorts, 65535, []uint8{protoTCP, protoUDP, protoSCTP}, "tcp, udp or sctp"},
		{"icmp_types", MatchICMPTypes, m.ICMPTypes, 255, []uint8{protoICMP, protoICMPv6}, "icmp or icmpv6"},
		{"icmp_codes", MatchICMPCodes, m.ICMPCodes, 255, []uint8{protoICMP, protoICMPv6}, "icmp or icmpv6"},
	} {
		if x.r == nil {
			continue
		}
		if x.r.From > x.r.To || x.r.To > x.most {
			return x.field, fmt.Sprintf("%d-%d is not a range within 0 and %d", x.r.From, x.r.To, x.most)
		}
		if !slices.Contains(x.protos, m.Proto) || m.Not&MatchProto != 0 {
			return x.field, "needs proto to be " + x.names
		}
	}
	switch m.Connection {
	case ConnectionAny, ConnectionNew, ConnectionReturn:
	default:
		return "connection", fmt.Sprintf("%q is none of new, return", m.Connection)
	}
	if m.Not&MatchFragment != 0 && transport(given) {
		return "fragment", "inverted: later fragments have no transport header, which other fields ask for"
	}
	switch m.Fragment {
	case "", FragmentFollow, FragmentHeader, FragmentUnfragmented:
	case FragmentAny, FragmentNonheader:
		if transport(given) {
			return "fragment", fmt.Sprintf("%q: later fragments have no transport header, which other fields ask for", m.Fragment)
		}
	default:
		return "fragment", fmt.Sprintf("%q is none of any, follow, header, nonheader, unfragmented", m.Fragment)
	}
	return "", ""
}

// outside is the set of fields that are tested whatever Invert says.
func (m *Condition) outside() (f MatchField) {
	if m.Fragment != "" && m.Fragment != FragmentAny && m.Fragment != FragmentFollow {
		f |= MatchFragment
	}
	if m.Connection != ConnectionAny {
		f |= MatchConnection
	}
	return f
}

// transport reports whether any field is of the transport header.
func transport(f MatchField) bool {
	return f&(MatchSrcPorts|MatchDstPorts|MatchICMPTypes|MatchICMPCodes|MatchQuotedSrc|MatchQuotedDst) != 0
}

// normalizeRule gives the fragment policy its default, and Then.
func normalizeRule(r *Rule) {
	if r.Then == "" && r.Action.Alters() {
		r.Then = RuleAccept
	}
	normalizeCondition(&r.Match)
}

// normalizeCondition: a transport field needs the header, of the packet's first fragment at least.
func normalizeCondition(m *Condition) {
	if m.Fragment != "" {
		return
	}
	m.Fragment = FragmentAny
	switch given := m.Given(); {
	case given&(MatchQuotedSrc|MatchQuotedDst) != 0:
		m.Fragment = FragmentHeader
	case transport(given):
		m.Fragment = FragmentFollow
	}
}

func cloneRule(r *Rule) Rule {
	c := *r
	c.Match = cloneCondition(&r.Match)
	c.Targets, c.DSCP = slices.Clone(r.Targets), clonePtr(r.DSCP)
	for i := range c.Targets {
		c.Targets[i].Ports = clonePtr(c.Targets[i].Ports)
	}
	return c
}

func cloneCondition(m *Condition) Condition {
	c := *m
	c.InPorts, c.OutPorts = slices.Clone(m.InPorts), slices.Clone(m.OutPorts)
	c.TOS = clonePtr(m.TOS)
	c.SrcPorts, c.DstPorts = clonePtr(m.SrcPorts), clonePtr(m.DstPorts)
	c.ICMPTypes, c.ICMPCodes = clonePtr(m.ICMPTypes), clonePtr(m.ICMPCodes)
	return c
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// matchRefs lists what a condition refers to.
func matchRefs(m *Condition, add func(Kind, uuid.UUID)) {
	for _, ids := range [][]uuid.UUID{m.InPorts, m.OutPorts} {
		for _, id := range ids {
			add(KindPort, id)
		}
	}
	for _, id := range []uuid.UUID{m.InPortGroup, m.OutPortGroup, m.PortGroup} {
		add(KindPortGroup, id)
	}
	add(KindAddressGroup, m.SrcGroup)
	add(KindAddressGroup, m.DstGroup)
	// Which of the two it is does not matter: ids differ between kinds.
	add(KindBridge, m.Traversed)
	add(KindRouter, m.Traversed)
}

// FullMAC is the mask of a single MAC address.
var FullMAC = match.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
