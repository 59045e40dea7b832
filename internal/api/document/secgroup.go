package document

import (
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// SecurityGroup is a set of ports, which name it, and what they may send and receive.
type SecurityGroup struct {
	Name     string `yaml:"name"`
	ID       string `yaml:"id"`
	Stateful *bool  `yaml:"stateful"`
}

// SecurityGroupRule is a rule of a security group.
type SecurityGroupRule struct {
	Name               string `yaml:"name"`
	ID                 string `yaml:"id"`
	SecurityGroup      string `yaml:"security_group,required"`
	Direction          string `yaml:"direction,required"`
	EtherType          string `yaml:"ethertype"`
	Protocol           string `yaml:"protocol"`
	PortRangeMin       *int   `yaml:"port_range_min"`
	PortRangeMax       *int   `yaml:"port_range_max"`
	ICMPType           *int   `yaml:"icmp_type"`
	ICMPCode           *int   `yaml:"icmp_code"`
	RemoteIPPrefix     string `yaml:"remote_ip_prefix"`
	RemoteGroup        string `yaml:"remote_group"`
	RemoteAddressGroup string `yaml:"remote_address_group"`
}

// Kind implements Value.
func (*SecurityGroup) Kind() model.Kind { return model.KindSecurityGroup }

// Kind implements Value.
func (*SecurityGroupRule) Kind() model.Kind { return model.KindSecurityGroupRule }

func (v *SecurityGroup) identity() (name, id string)     { return v.Name, v.ID }
func (v *SecurityGroupRule) identity() (name, id string) { return v.Name, v.ID }

func (p *planner) securityGroupRule(d *Doc, v *SecurityGroupRule, id uuid.UUID) {
	p.put(d, "", &wire.SecurityGroupRule{
		Meta: meta(id, v.Name), SecurityGroupID: p.find(d, "security_group", model.KindSecurityGroup, v.SecurityGroup),
		Direction: v.Direction, EtherType: v.EtherType, Protocol: v.Protocol, PortRangeMin: v.PortRangeMin, PortRangeMax: v.PortRangeMax,
		ICMPType: v.ICMPType, ICMPCode: v.ICMPCode, RemoteIPPrefix: v.RemoteIPPrefix,
		RemoteGroupID:        p.find(d, "remote_group", model.KindSecurityGroup, v.RemoteGroup),
		RemoteAddressGroupID: p.find(d, "remote_address_group", model.KindAddressGroup, v.RemoteAddressGroup),
	})
}

// securityGroupRule is the document of a rule, with names in place of ids.
func securityGroupRule(o *model.SecurityGroupRule, x *ref.Index) *SecurityGroupRule {
	name := func(k model.Kind, id uuid.UUID) string {
		if id == uuid.Nil {
			return ""
		}
		return x.Label(k, id)
	}
	w := wire.FromSecurityGroupRule(o, wire.Meta{})
	return &SecurityGroupRule{
		SecurityGroup: name(model.KindSecurityGroup, o.GroupID), Direction: w.Direction, EtherType: w.EtherType, Protocol: w.Protocol,
		PortRangeMin: w.PortRangeMin, PortRangeMax: w.PortRangeMax, ICMPType: w.ICMPType, ICMPCode: w.ICMPCode, RemoteIPPrefix: w.RemoteIPPrefix,
		RemoteGroup:        name(model.KindSecurityGroup, o.RemoteGroupID),
		RemoteAddressGroup: name(model.KindAddressGroup, o.RemoteAddressGroupID),
	}
}

// AllowsText is what a rule allows, on one line: "IPv4 tcp 80-443 from 10.0.0.0/8".
func AllowsText(o *model.SecurityGroupRule, x *ref.Index) string {
	v := securityGroupRule(o, x)
	parts := []string{v.EtherType}
	if v.Protocol != "" {
		parts = append(parts, v.Protocol)
	}
	switch {
	case o.PortMin != nil && o.PortMax != nil && *o.PortMin == *o.PortMax:
		parts = append(parts, fmt.Sprint(*o.PortMin))
	case o.PortMin != nil && o.PortMax != nil:
		parts = append(parts, fmt.Sprintf("%d-%d", *o.PortMin, *o.PortMax))
	case o.ICMPType != nil && o.ICMPCode != nil:
		parts = append(parts, fmt.Sprintf("type %d code %d", *o.ICMPType, *o.ICMPCode))
	case o.ICMPType != nil:
		parts = append(parts, fmt.Sprintf("type %d", *o.ICMPType))
	}
	way := "from"
	if o.Direction == model.Egress {
		way = "to"
	}
	switch {
	case v.RemoteGroup != "":
		parts = append(parts, way, "group", v.RemoteGroup)
	case v.RemoteAddressGroup != "":
		parts = append(parts, way, "address group", v.RemoteAddressGroup)
	case v.RemoteIPPrefix != "":
		parts = append(parts, way, v.RemoteIPPrefix)
	}
	return strings.Join(parts, " ")
}
