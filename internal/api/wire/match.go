package wire

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// names of numbers in conditions.
type names []struct {
	name  string
	value uint16
}

var (
	ethTypes = names{{"ipv4", 0x0800}, {"ipv6", 0x86dd}, {"arp", 0x0806}}
	protos   = names{{"tcp", 6}, {"udp", 17}, {"sctp", 132}, {"icmp", 1}, {"icmpv6", 58}}
)

func (n names) text(v uint16, format string) string {
	if v == 0 {
		return ""
	}
	for _, x := range n {
		if x.value == v {
			return x.name
		}
	}
	return fmt.Sprintf(format, v)
}

// number reads a name or a number from 1 to most; "" is 0.
func (p *parser) number(path, s string, n names, most uint64) uint16 {
	for _, x := range n {
		if x.name == s {
			return x.value
		}
	}
	if s == "" {
		return 0
	}
	v, err := strconv.ParseUint(s, 0, 16)
	if err != nil || v == 0 || v > most {
		known := make([]string, len(n))
		for i := range n {
			known[i] = n[i].name
		}
		p.fail(path, s, fmt.Sprintf("is none of %s, nor a number within 1 and %d", strings.Join(known, ", "), most))
	}
	return uint16(v)
}

func (p *parser) match(w *Match) model.Condition {
	at := func(field string) string { return "match." + field }
	m := model.Condition{
		Invert:       w.Invert,
		InPorts:      p.ids(at("in_ports"), w.InPorts),
		OutPorts:     p.ids(at("out_ports"), w.OutPorts),
		InPortGroup:  p.id(at("in_port_group"), w.InPortGroup),
		OutPortGroup: p.id(at("out_port_group"), w.OutPortGroup),
		PortGroup:    p.id(at("port_group"), w.PortGroup),
		Traversed:    p.id(at("traversed"), w.Traversed),
		EthType:      p.number(at("eth_type"), w.EthType, ethTypes, 0xffff),
		EthSrc:       p.macMask(at("eth_src"), w.EthSrc),
		EthDst:       p.macMask(at("eth_dst"), w.EthDst),
		NoVLAN:       w.NoVLAN,
		Proto:        uint8(p.number(at("proto"), w.Proto, protos, 255)),
		Src:          p.subnet(at("src"), w.Src),
		Dst:          p.subnet(at("dst"), w.Dst),
		OriginalDst:  p.subnet(at("original_dst"), w.OriginalDst),
		DstRewritten: w.DstRewritten,
		SrcGroup:     p.id(at("src_group"), w.SrcGroup),
		DstGroup:     p.id(at("dst_group"), w.DstGroup),
		SrcPorts:     p.numbers(at("src_ports"), w.SrcPorts),
		DstPorts:     p.numbers(at("dst_ports"), w.DstPorts),
		ICMPTypes:    p.numbers(at("icmp_types"), w.ICMPTypes),
		ICMPCodes:    p.numbers(at("icmp_codes"), w.ICMPCodes),
		QuotedSrc:    p.subnet(at("quoted_src"), w.QuotedSrc),
		QuotedDst:    p.subnet(at("quoted_dst"), w.QuotedDst),
		Fragment:     model.Fragment(w.Fragment),
		Connection:   model.Connection(w.Connection),
	}
	for i, name := range w.Not {
		f, ok := model.ParseMatchField(name)
		if !ok {
			p.fail(index(at("not"), i), name, "is not a field that can be inverted")
		}
		m.Not |= f
	}
	m.VLAN = p.vlan(at("vlan"), w.VLAN)
	if w.TOS != nil {
		if *w.TOS < 0 || *w.TOS > 255 {
			p.fail(at("tos"), strconv.Itoa(*w.TOS), "is not within 0 and 255")
		}
		tos := uint8(*w.TOS)
		m.TOS = &tos
	}
	return m
}

// vlan checks an id; 0 is none.
func (p *parser) vlan(path string, id int) uint16 {
	if id < 0 || id > 4094 {
		p.fail(path, strconv.Itoa(id), "is not within 1 and 4094")
	}
	return uint16(id)
}

func (p *parser) ids(path string, list []string) []uuid.UUID {
	var ids []uuid.UUID
	for i, s := range list {
		id := p.id(index(path, i), s)
		if s == "" {
			p.fail(index(path, i), s, "is empty")
		}
		ids = append(ids, id)
	}
	return ids
}

// subnet reads an address or a prefix; "" is none.
func (p *parser) subnet(path, s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen())
	}
	a, err := netip.ParsePrefix(s)
	if err != nil {
		p.fail(path, s, "is not an address or a prefix such as 10.0.2.0/24")
	}
	return a
}

func subnetText(a netip.Prefix) string {
	switch {
	case !a.IsValid():
		return ""
	case a.IsSingleIP():
		return a.Addr().String()
	}
	return a.String()
}

// macMask reads an address with an optional mask.
func (p *parser) macMask(path, s string) model.MACMatch {
	if s == "" {
		return model.MACMatch{}
	}
	addr, mask, masked := strings.Cut(s, "/")
	m := model.MACMatch{Addr: p.mac(path, addr), Mask: model.FullMAC}
	if masked {
		m.Mask = p.mac(path, mask)
		if m.Mask == (match.MAC{}) {
			p.fail(path, s, "has a mask without bits: leave the field out")
		}
	}
	return m
}

func macMaskText(m model.MACMatch) string {
	switch m.Mask {
	case match.MAC{}:
		return ""
	case model.FullMAC:
		return m.Addr.String()
	}
	return m.Addr.String() + "/" + m.Mask.String()
}

// numbers reads a number or a range; "" is none.
func (p *parser) numbers(path, s string) *model.Range {
	if s == "" {
		return nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, err := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	b, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	if err != nil || err2 != nil {
		p.fail(path, s, "is not a number or a range such as 80-90, within 0 and 65535")
	}
	return &model.Range{From: uint16(a), To: uint16(b)}
}

func rangeText(r *model.Range) string {
	switch {
	case r == nil:
		return ""
	case r.From == r.To:
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

func idTexts(ids []uuid.UUID) []string {
	var s []string
	for _, id := range ids {
		s = append(s, id.String())
	}
	return s
}

// FromCondition converts a condition; ident writes a reference. nil for one that fits everything.
func FromCondition(m *model.Condition, ident func(model.Kind, uuid.UUID) string) *Match {
	many := func(ids []uuid.UUID) []string {
		var s []string
		for _, id := range ids {
			s = append(s, ident(model.KindPort, id))
		}
		return s
	}
	one := func(k model.Kind, id uuid.UUID) string {
		if id == uuid.Nil {
			return ""
		}
		return ident(k, id)
	}
	w := &Match{
		Invert: m.Invert, Not: m.Not.Names(), InPorts: many(m.InPorts), OutPorts: many(m.OutPorts),
		InPortGroup: one(model.KindPortGroup, m.InPortGroup), OutPortGroup: one(model.KindPortGroup, m.OutPortGroup),
		PortGroup: one(model.KindPortGroup, m.PortGroup), Traversed: one("", m.Traversed),
		EthType: ethTypes.text(m.EthType, "%#04x"), EthSrc: macMaskText(m.EthSrc), EthDst: macMaskText(m.EthDst),
		VLAN: int(m.VLAN), NoVLAN: m.NoVLAN, Proto: protos.text(uint16(m.Proto), "%d"),
		Src: subnetText(m.Src), Dst: subnetText(m.Dst), OriginalDst: subnetText(m.OriginalDst), DstRewritten: m.DstRewritten,
		SrcGroup: one(model.KindAddressGroup, m.SrcGroup), DstGroup: one(model.KindAddressGroup, m.DstGroup),
		SrcPorts: rangeText(m.SrcPorts), DstPorts: rangeText(m.DstPorts), ICMPTypes: rangeText(m.ICMPTypes), ICMPCodes: rangeText(m.ICMPCodes),
		QuotedSrc: subnetText(m.QuotedSrc), QuotedDst: subnetText(m.QuotedDst),
	}
	if m.TOS != nil {
		tos := int(*m.TOS)
		w.TOS = &tos
	}
	fitsAll := m.Given() == 0 && !m.Invert
	if m.Fragment != model.FragmentAny && m.Fragment != model.FragmentFollow {
		w.Fragment = string(m.Fragment)
	}
	w.Connection = string(m.Connection)
	if fitsAll && w.Fragment == "" && w.Connection == "" {
		return nil
	}
	return w
}
