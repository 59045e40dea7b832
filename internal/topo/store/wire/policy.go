package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

type wireAddressGroup struct {
	ID        uuid.UUID      `json:"id"`
	Name      string         `json:"name,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

type wireSecurityGroup struct {
	ID       uuid.UUID `json:"id"`
	Name     string    `json:"name,omitempty"`
	Stateful bool      `json:"stateful"`
}

type wireSecurityGroupRule struct {
	ID        uuid.UUID       `json:"id"`
	Name      string          `json:"name,omitempty"`
	Group     uuid.UUID       `json:"security_group"`
	Direction model.Direction `json:"direction"`
	EtherType model.EtherType `json:"ethertype"`
	Protocol  uint8           `json:"protocol,omitempty"`
	PortMin   *uint16         `json:"port_range_min,omitempty"`
	PortMax   *uint16         `json:"port_range_max,omitempty"`
	ICMPType  *uint8          `json:"icmp_type,omitempty"`
	ICMPCode  *uint8          `json:"icmp_code,omitempty"`
	Prefix    *netip.Prefix   `json:"remote_ip_prefix,omitempty"`
	Remote    *uuid.UUID      `json:"remote_group,omitempty"`
	Addresses *uuid.UUID      `json:"remote_address_group,omitempty"`
}

type wireQoSPolicy struct {
	ID      uuid.UUID `json:"id"`
	Name    string    `json:"name,omitempty"`
	Egress  wireLimit `json:"egress,omitzero"`
	Ingress wireLimit `json:"ingress,omitzero"`
	DSCP    *uint8    `json:"dscp,omitempty"`
}

type wireLimit struct {
	MaxKbps      uint32 `json:"max_kbps,omitempty"`
	MaxBurstKbps uint32 `json:"max_burst_kbps,omitempty"`
}

type wireMirror struct {
	ID        uuid.UUID             `json:"id"`
	Name      string                `json:"name,omitempty"`
	Port      *uuid.UUID            `json:"port,omitempty"`
	Bridge    *uuid.UUID            `json:"bridge,omitempty"`
	Router    *uuid.UUID            `json:"router,omitempty"`
	Direction model.MirrorDirection `json:"direction"`
	Before    bool                  `json:"before_filters,omitempty"`
	Match     wireMatch             `json:"match"`
	To        uuid.UUID             `json:"to_port"`
}

type wireRule struct {
	ID       uuid.UUID        `json:"id"`
	Name     string           `json:"name,omitempty"`
	Chain    uuid.UUID        `json:"chain"`
	Position int              `json:"position"`
	Match    wireMatch        `json:"match"`
	Action   model.RuleAction `json:"action"`
	Jump     *uuid.UUID       `json:"jump,omitempty"`
	Then     model.RuleAction `json:"then,omitempty"`
	Targets  []wireTarget     `json:"targets,omitempty"`
	Redirect *wireRedirect    `json:"redirect,omitempty"`
	VLAN     uint16           `json:"vlan,omitempty"`
	DSCP     *uint8           `json:"dscp,omitempty"`
	Log      bool             `json:"log,omitempty"`
}

type wireTarget struct {
	From  netip.Addr `json:"from"`
	To    netip.Addr `json:"to"`
	Ports *wireRange `json:"ports,omitempty"`
}

type wireRedirect struct {
	Port     uuid.UUID `json:"port"`
	Egress   bool      `json:"egress,omitempty"`
	FailOpen bool      `json:"fail_open,omitempty"`
}

type wireMatch struct {
	Invert       bool           `json:"invert,omitempty"`
	Not          []string       `json:"not,omitempty"`
	InPorts      []uuid.UUID    `json:"in_ports,omitempty"`
	OutPorts     []uuid.UUID    `json:"out_ports,omitempty"`
	InPortGroup  *uuid.UUID     `json:"in_port_group,omitempty"`
	OutPortGroup *uuid.UUID     `json:"out_port_group,omitempty"`
	PortGroup    *uuid.UUID     `json:"port_group,omitempty"`
	Traversed    *uuid.UUID     `json:"traversed,omitempty"`
	EthType      uint16         `json:"eth_type,omitempty"`
	EthSrc       *wireMAC       `json:"eth_src,omitempty"`
	EthDst       *wireMAC       `json:"eth_dst,omitempty"`
	VLAN         uint16         `json:"vlan,omitempty"`
	NoVLAN       bool           `json:"no_vlan,omitempty"`
	TOS          *uint8         `json:"tos,omitempty"`
	Proto        uint8          `json:"proto,omitempty"`
	Src          *netip.Prefix  `json:"src,omitempty"`
	Dst          *netip.Prefix  `json:"dst,omitempty"`
	OriginalDst  *netip.Prefix  `json:"original_dst,omitempty"`
	DstRewritten bool           `json:"dst_rewritten,omitempty"`
	SrcGroup     *uuid.UUID     `json:"src_group,omitempty"`
	DstGroup     *uuid.UUID     `json:"dst_group,omitempty"`
	SrcPorts     *wireRange     `json:"src_ports,omitempty"`
	DstPorts     *wireRange     `json:"dst_ports,omitempty"`
	ICMPTypes    *wireRange     `json:"icmp_types,omitempty"`
	ICMPCodes    *wireRange     `json:"icmp_codes,omitempty"`
	QuotedSrc    *netip.Prefix  `json:"quoted_src,omitempty"`
	QuotedDst    *netip.Prefix  `json:"quoted_dst,omitempty"`
	Fragment     model.Fragment `json:"fragment,omitempty"`

	Connection model.Connection `json:"connection,omitempty"`
}

type wireMAC struct {
	Addr string `json:"addr"`
	Mask string `json:"mask"`
}

type wireRange struct {
	From uint16 `json:"from"`
	To   uint16 `json:"to"`
}

type wirePortGroup struct {
	ID       uuid.UUID `json:"id"`
	Name     string    `json:"name,omitempty"`
	Stateful bool      `json:"stateful,omitempty"`
}

func encodePolicy(o model.Object) ([]byte, error) {
	switch o := o.(type) {
	case *model.Chain:
		return json.Marshal(wireNamed{o.ID, o.Name})
	case *model.PortGroup:
		return json.Marshal(wirePortGroup{o.ID, o.Name, o.Stateful})
	case *model.AddressGroup:
		return json.Marshal(wireAddressGroup{o.ID, o.Name, o.Addresses})
	case *model.SecurityGroup:
		return json.Marshal(wireSecurityGroup{o.ID, o.Name, o.Stateful})
	case *model.SecurityGroupRule:
		return json.Marshal(wireSecurityGroupRule{o.ID, o.Name, o.GroupID, o.Direction, o.EtherType, o.Protocol, o.PortMin, o.PortMax,
			o.ICMPType, o.ICMPCode, optional(o.RemotePrefix), optional(o.RemoteGroupID), optional(o.RemoteAddressGroupID)})
	case *model.QoSPolicy:
		return json.Marshal(wireQoSPolicy{o.ID, o.Name, wireLimit(o.Egress), wireLimit(o.Ingress), o.DSCP})
	case *model.Mirror:
		return json.Marshal(wireMirror{o.ID, o.Name, optional(o.PortID), optional(o.BridgeID), optional(o.RouterID),
			o.Direction, o.BeforeFilters, encodeMatch(&o.Match), o.ToPortID})
	case *model.Rule:
		return json.Marshal(encodeRule(o))
	}
	return nil, fmt.Errorf("no wire form for a %T", o)
}

func decodePolicy(kind model.Kind, data []byte) (model.Object, error) {
	meta := func(id uuid.UUID, name string) model.Meta { return model.Meta{ID: id, Name: name} }
	switch kind {
	case model.KindChain:
		w, err := read[wireNamed](data)
		return &model.Chain{Meta: meta(w.ID, w.Name)}, err
	case model.KindPortGroup:
		w, err := read[wirePortGroup](data)
		return &model.PortGroup{Meta: meta(w.ID, w.Name), Stateful: w.Stateful}, err
	case model.KindAddressGroup:
		w, err := read[wireAddressGroup](data)
		return &model.AddressGroup{Meta: meta(w.ID, w.Name), Addresses: w.Addresses}, err
	case model.KindSecurityGroup:
		w, err := read[wireSecurityGroup](data)
		return &model.SecurityGroup{Meta: meta(w.ID, w.Name), Stateful: w.Stateful}, err
	case model.KindSecurityGroupRule:
		w, err := read[wireSecurityGroupRule](data)
		return &model.SecurityGroupRule{Meta: meta(w.ID, w.Name), GroupID: w.Group, Direction: w.Direction, EtherType: w.EtherType,
			Protocol: w.Protocol, PortMin: w.PortMin, PortMax: w.PortMax, ICMPType: w.ICMPType, ICMPCode: w.ICMPCode,
			RemotePrefix: value(w.Prefix), RemoteGroupID: value(w.Remote), RemoteAddressGroupID: value(w.Addresses)}, err
	case model.KindQoSPolicy:
		w, err := read[wireQoSPolicy](data)
		return &model.QoSPolicy{Meta: meta(w.ID, w.Name), Egress: model.BandwidthLimit(w.Egress), Ingress: model.BandwidthLimit(w.Ingress), DSCP: w.DSCP}, err
	case model.KindMirror:
		w, err := read[wireMirror](data)
		if err != nil {
			return nil, err
		}
		m, err := decodeMatch(&w.Match)
		return &model.Mirror{Meta: meta(w.ID, w.Name), PortID: value(w.Port), BridgeID: value(w.Bridge), RouterID: value(w.Router),
			Direction: w.Direction, BeforeFilters: w.Before, Match: m, ToPortID: w.To}, err
	case model.KindRule:
		w, err := read[wireRule](data)
		if err != nil {
			return nil, err
		}
		return decodeRule(&w)
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

func encodeRule(o *model.Rule) wireRule {
	w := wireRule{
		ID: o.ID, Name: o.Name, Chain: o.ChainID, Position: o.Position, Match: encodeMatch(&o.Match), Action: o.Action, Jump: optional(o.JumpID),
		Then: o.Then, VLAN: o.VLAN, DSCP: o.DSCP, Log: o.Log,
	}
	for _, t := range o.Targets {
		w.Targets = append(w.Targets, wireTarget{t.From, t.To, (*wireRange)(t.Ports)})
	}
	if r := o.Redirect; r != (model.Redirect{}) {
		w.Redirect = &wireRedirect{r.PortID, r.Egress, r.FailOpen}
	}
	return w
}

func decodeRule(w *wireRule) (*model.Rule, error) {
	m, err := decodeMatch(&w.Match)
	o := &model.Rule{
		Meta: model.Meta{ID: w.ID, Name: w.Name}, ChainID: w.Chain, Position: w.Position, Match: m, Action: w.Action, JumpID: value(w.Jump),
		Then: w.Then, VLAN: w.VLAN, DSCP: w.DSCP, Log: w.Log,
	}
	for _, t := range w.Targets {
		o.Targets = append(o.Targets, model.NATTarget{From: t.From, To: t.To, Ports: (*model.Range)(t.Ports)})
	}
	if r := w.Redirect; r != nil {
		o.Redirect = model.Redirect{PortID: r.Port, Egress: r.Egress, FailOpen: r.FailOpen}
	}
	return o, err
}

func encodeMatch(m *model.Condition) wireMatch {
	return wireMatch{
		Invert: m.Invert, Not: m.Not.Names(), InPorts: m.InPorts, OutPorts: m.OutPorts, InPortGroup: optional(m.InPortGroup),
		OutPortGroup: optional(m.OutPortGroup), PortGroup: optional(m.PortGroup), Traversed: optional(m.Traversed),
		EthType: m.EthType, EthSrc: encodeMAC(m.EthSrc), EthDst: encodeMAC(m.EthDst), VLAN: m.VLAN, NoVLAN: m.NoVLAN,
		TOS: m.TOS, Proto: m.Proto, Src: optional(m.Src), Dst: optional(m.Dst),
		OriginalDst: optional(m.OriginalDst), DstRewritten: m.DstRewritten, SrcGroup: optional(m.SrcGroup), DstGroup: optional(m.DstGroup),
		SrcPorts: (*wireRange)(m.SrcPorts), DstPorts: (*wireRange)(m.DstPorts), ICMPTypes: (*wireRange)(m.ICMPTypes), ICMPCodes: (*wireRange)(m.ICMPCodes),
		QuotedSrc: optional(m.QuotedSrc), QuotedDst: optional(m.QuotedDst), Fragment: m.Fragment, Connection: m.Connection,
	}
}

func decodeMatch(w *wireMatch) (model.Condition, error) {
	m := model.Condition{
		Invert: w.Invert, InPorts: w.InPorts, OutPorts: w.OutPorts, InPortGroup: value(w.InPortGroup),
		OutPortGroup: value(w.OutPortGroup), PortGroup: value(w.PortGroup), Traversed: value(w.Traversed),
		EthType: w.EthType, VLAN: w.VLAN, NoVLAN: w.NoVLAN,
		TOS: w.TOS, Proto: w.Proto, Src: value(w.Src), Dst: value(w.Dst),
		OriginalDst: value(w.OriginalDst), DstRewritten: w.DstRewritten, SrcGroup: value(w.SrcGroup), DstGroup: value(w.DstGroup),
		SrcPorts: (*model.Range)(w.SrcPorts), DstPorts: (*model.Range)(w.DstPorts), ICMPTypes: (*model.Range)(w.ICMPTypes), ICMPCodes: (*model.Range)(w.ICMPCodes),
		QuotedSrc: value(w.QuotedSrc), QuotedDst: value(w.QuotedDst), Fragment: w.Fragment, Connection: w.Connection,
	}
	for _, name := range w.Not {
		f, ok := model.ParseMatchField(name)
		if !ok {
			// Of a later version. To ignore it would turn the rule into its opposite.
			return m, fmt.Errorf("unknown field %q is inverted", name)
		}
		m.Not |= f
	}
	var err, err2 error
	m.EthSrc, err = decodeMAC(w.EthSrc)
	m.EthDst, err2 = decodeMAC(w.EthDst)
	if err == nil {
		err = err2
	}
	return m, err
}

func encodeMAC(m model.MACMatch) *wireMAC {
	if m.Mask == (match.MAC{}) {
		return nil
	}
	return &wireMAC{m.Addr.String(), m.Mask.String()}
}

func decodeMAC(w *wireMAC) (m model.MACMatch, err error) {
	if w == nil {
		return m, nil
	}
	if m.Addr, err = parseMAC(w.Addr); err != nil {
		return m, err
	}
	m.Mask, err = parseMAC(w.Mask)
	return m, err
}

type wirePair struct {
	MAC     string       `json:"mac,omitempty"`
	Address netip.Prefix `json:"address"`
}

func encodePairs(pairs []model.AddressPair) (w []wirePair) {
	for _, p := range pairs {
		x := wirePair{Address: p.Address}
		if p.MAC != (match.MAC{}) {
			x.MAC = p.MAC.String()
		}
		w = append(w, x)
	}
	return w
}

func decodePairs(w []wirePair) (pairs []model.AddressPair, err error) {
	for _, x := range w {
		p := model.AddressPair{Address: x.Address}
		if x.MAC != "" {
			if p.MAC, err = parseMAC(x.MAC); err != nil {
				return nil, err
			}
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}
