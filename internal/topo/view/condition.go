package view

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Condition is a model.Condition in the form in which packets are held against it. Of a field that is not
// in Given the value does not count.
type Condition struct {
	Given    model.MatchField // fields that are tested
	Not      model.MatchField // those that are inverted
	Invert   bool
	Fragment FragmentPolicy

	Connection model.Connection

	EthType              uint16
	VLAN                 uint16
	TOS, Proto           uint8
	EthSrc, EthDst       model.MACMatch
	Src, Dst             Prefix
	OriginalDst          Prefix
	SrcPorts, DstPorts   model.Range
	ICMPTypes, ICMPCodes model.Range
	QuotedSrc, QuotedDst Prefix

	InPorts, OutPorts                    []uuid.UUID
	InPortGroup, OutPortGroup, PortGroup uuid.UUID
	Traversed                            uuid.UUID
	SrcGroup, DstGroup                   uuid.UUID
}

// FragmentPolicy says which pieces of fragmented packets a rule is about.
type FragmentPolicy uint8

// Fragment policies; see model.Fragment.
const (
	FragmentsAny FragmentPolicy = iota
	FragmentsFollow
	FragmentsHeader
	FragmentsNonheader
	FragmentsNone
)

// NewCondition compiles a valid condition; it shares no memory with m, but for lists that never change.
func NewCondition(m *model.Condition) Condition {
	c := Condition{
		Given: m.Given(), Not: m.Not, Invert: m.Invert, Fragment: fragmentPolicies[m.Fragment], Connection: m.Connection,
		EthType: m.EthType, VLAN: m.VLAN, Proto: m.Proto, EthSrc: m.EthSrc, EthDst: m.EthDst,
		Src: newPrefix(m.Src), Dst: newPrefix(m.Dst), OriginalDst: newPrefix(m.OriginalDst), QuotedSrc: newPrefix(m.QuotedSrc), QuotedDst: newPrefix(m.QuotedDst),
		InPorts: m.InPorts, OutPorts: m.OutPorts, InPortGroup: m.InPortGroup, OutPortGroup: m.OutPortGroup, PortGroup: m.PortGroup,
		Traversed: m.Traversed, SrcGroup: m.SrcGroup, DstGroup: m.DstGroup,
	}
	if m.TOS != nil {
		c.TOS = *m.TOS
	}
	for to, from := range map[*model.Range]*model.Range{
		&c.SrcPorts: m.SrcPorts, &c.DstPorts: m.DstPorts, &c.ICMPTypes: m.ICMPTypes, &c.ICMPCodes: m.ICMPCodes,
	} {
		if from != nil {
			*to = *from
		}
	}
	return c
}

var fragmentPolicies = map[model.Fragment]FragmentPolicy{
	model.FragmentAny: FragmentsAny, model.FragmentFollow: FragmentsFollow, model.FragmentHeader: FragmentsHeader,
	model.FragmentNonheader: FragmentsNonheader, model.FragmentUnfragmented: FragmentsNone,
}

// String lists what is tested: "proto=6 !src=10.0.0.0/8"; "any" for what every packet fits.
func (c *Condition) String() string {
	var parts []string
	for f := model.MatchField(1); f <= c.Given; f <<= 1 {
		if c.Given&f == 0 {
			continue
		}
		text := f.Names()[0]
		if f != model.MatchNoVLAN && f != model.MatchDstRewritten {
			text += "=" + c.value(f)
		}
		if c.Not&f != 0 {
			text = "!" + text
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, " ")
	if text == "" {
		text = "any"
	}
	if c.Invert {
		text = "!(" + text + ")"
	}
	if c.Fragment > FragmentsFollow {
		text += " " + not(c.Not&model.MatchFragment) + "fragment=" + [...]string{"any", "follow", "header", "nonheader", "unfragmented"}[c.Fragment]
	}
	if c.Connection != model.ConnectionAny {
		text += " " + not(c.Not&model.MatchConnection) + "connection=" + string(c.Connection)
	}
	return text
}

func (c *Condition) value(f model.MatchField) string {
	switch f {
	case model.MatchInPorts:
		return idsText(c.InPorts)
	case model.MatchOutPorts:
		return idsText(c.OutPorts)
	case model.MatchInPortGroup:
		return c.InPortGroup.String()
	case model.MatchOutPortGroup:
		return c.OutPortGroup.String()
	case model.MatchPortGroup:
		return c.PortGroup.String()
	case model.MatchTraversed:
		return c.Traversed.String()
	case model.MatchEthType:
		return fmt.Sprintf("%#04x", c.EthType)
	case model.MatchEthSrc:
		return macText(c.EthSrc)
	case model.MatchEthDst:
		return macText(c.EthDst)
	case model.MatchVLAN:
		return fmt.Sprint(c.VLAN)
	case model.MatchTOS:
		return fmt.Sprintf("%#02x", c.TOS)
	case model.MatchProto:
		return fmt.Sprint(c.Proto)
	case model.MatchSrc:
		return c.Src.String()
	case model.MatchDst:
		return c.Dst.String()
	case model.MatchOriginalDst:
		return c.OriginalDst.String()
	case model.MatchSrcGroup:
		return c.SrcGroup.String()
	case model.MatchDstGroup:
		return c.DstGroup.String()
	case model.MatchSrcPorts:
		return rangeText(c.SrcPorts)
	case model.MatchDstPorts:
		return rangeText(c.DstPorts)
	case model.MatchICMPTypes:
		return rangeText(c.ICMPTypes)
	case model.MatchICMPCodes:
		return rangeText(c.ICMPCodes)
	case model.MatchQuotedSrc:
		return c.QuotedSrc.String()
	case model.MatchQuotedDst:
		return c.QuotedDst.String()
	}
	return "?"
}

func not(f model.MatchField) string {
	if f != 0 {
		return "!"
	}
	return ""
}

func idsText(ids []uuid.UUID) string {
	s := make([]string, len(ids))
	for i := range ids {
		s[i] = ids[i].String()
	}
	return strings.Join(s, ",")
}

func macText(m model.MACMatch) string {
	if m.Mask == model.FullMAC {
		return m.Addr.String()
	}
	return m.Addr.String() + "/" + m.Mask.String()
}

func rangeText(r model.Range) string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}
