package wire

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// SecurityGroup is model.SecurityGroup on the wire.
type SecurityGroup struct {
	Meta
	Stateful *bool `json:"stateful,omitempty" default:"true" doc:"Answers to what the group allows pass. Those of a stateless group need a rule of their own."`
}

// SecurityGroupRule is model.SecurityGroupRule on the wire.
type SecurityGroupRule struct {
	Meta
	SecurityGroupID      string `json:"security_group_id" format:"uuid" doc:"Security group that the rule is of."`
	Direction            string `json:"direction" enum:"ingress,egress" doc:"ingress: to the VM; egress: from it."`
	EtherType            string `json:"ethertype,omitempty" enum:"IPv4,IPv6" default:"IPv4" doc:"Address family."`
	Protocol             string `json:"protocol,omitempty" example:"tcp" doc:"tcp, udp, sctp, icmp, icmpv6, or a number; any when absent."`
	PortRangeMin         *int   `json:"port_range_min,omitempty" minimum:"1" maximum:"65535" doc:"First destination port; needs protocol tcp, udp or sctp, and port_range_max."`
	PortRangeMax         *int   `json:"port_range_max,omitempty" minimum:"1" maximum:"65535" doc:"Last destination port."`
	ICMPType             *int   `json:"icmp_type,omitempty" minimum:"0" maximum:"255" doc:"ICMP type; needs protocol icmp or icmpv6."`
	ICMPCode             *int   `json:"icmp_code,omitempty" minimum:"0" maximum:"255" doc:"ICMP code; needs icmp_type."`
	RemoteIPPrefix       string `json:"remote_ip_prefix,omitempty" example:"10.0.0.0/8" doc:"Address or subnet at the other end. At most one of the remote fields is given."`
	RemoteGroupID        string `json:"remote_group_id,omitempty" format:"uuid" doc:"Security group whose ports' addresses are at the other end; it may be the rule's own."`
	RemoteAddressGroupID string `json:"remote_address_group_id,omitempty" format:"uuid" doc:"Address group of the other end."`
}

// groupProtocols are those that Neutron knows by name, with its other names last.
var groupProtocols = append(slices.Clone(protos), names{
	{"any", 0}, {"ah", 51}, {"dccp", 33}, {"egp", 8}, {"esp", 50}, {"gre", 47}, {"igmp", 2}, {"ipip", 4}, {"ospf", 89}, {"pgm", 113}, {"rsvp", 46},
	{"udplite", 136}, {"vrrp", 112}, {"ipv6-icmp", 58},
}...)

// Kind implements Object.
func (*SecurityGroup) Kind() model.Kind { return model.KindSecurityGroup }

// Kind implements Object.
func (*SecurityGroupRule) Kind() model.Kind { return model.KindSecurityGroupRule }

// Model implements Object.
func (w *SecurityGroup) Model() (model.Object, error) {
	var p parser
	return p.done(&model.SecurityGroup{Meta: p.meta(w.Meta), Stateful: orTrue(w.Stateful)})
}

// Model implements Object.
func (w *SecurityGroupRule) Model() (model.Object, error) {
	var p parser
	return p.done(&model.SecurityGroupRule{
		Meta: p.meta(w.Meta), GroupID: p.id("security_group_id", w.SecurityGroupID),
		Direction: model.Direction(w.Direction), EtherType: model.EtherType(w.EtherType), Protocol: uint8(p.number("protocol", w.Protocol, groupProtocols, 255)),
		PortMin: bounded(&p, "port_range_min", w.PortRangeMin, uint16(65535)), PortMax: bounded(&p, "port_range_max", w.PortRangeMax, uint16(65535)),
		ICMPType: bounded(&p, "icmp_type", w.ICMPType, uint8(255)), ICMPCode: bounded(&p, "icmp_code", w.ICMPCode, uint8(255)),
		RemotePrefix: p.subnet("remote_ip_prefix", w.RemoteIPPrefix), RemoteGroupID: p.id("remote_group_id", w.RemoteGroupID),
		RemoteAddressGroupID: p.id("remote_address_group_id", w.RemoteAddressGroupID),
	})
}

// FromSecurityGroupRule converts a rule that goes by meta.
func FromSecurityGroupRule(o *model.SecurityGroupRule, meta Meta) *SecurityGroupRule {
	return &SecurityGroupRule{
		Meta: meta, SecurityGroupID: idText(o.GroupID), Direction: string(o.Direction), EtherType: string(o.EtherType),
		Protocol: groupProtocols.text(uint16(o.Protocol), "%d"), PortRangeMin: number(o.PortMin), PortRangeMax: number(o.PortMax),
		ICMPType: number(o.ICMPType), ICMPCode: number(o.ICMPCode), RemoteIPPrefix: subnetText(o.RemotePrefix),
		RemoteGroupID: idText(o.RemoteGroupID), RemoteAddressGroupID: idText(o.RemoteAddressGroupID),
	}
}

// bounded reads an optional number.
func bounded[T uint8 | uint16](p *parser, path string, n *int, most T) *T {
	if n == nil {
		return nil
	}
	if *n < 0 || *n > int(most) {
		p.fail(path, strconv.Itoa(*n), fmt.Sprintf("is not within 0 and %d", most))
	}
	v := T(*n)
	return &v
}

func number[T uint8 | uint16](p *T) *int {
	if p == nil {
		return nil
	}
	n := int(*p)
	return &n
}
