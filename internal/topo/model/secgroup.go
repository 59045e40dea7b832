package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

// SecurityGroup is a set of ports and what these may send and receive, in Neutron's terms: its rules allow, and what none of
// a port's groups allows is dropped. The members are the ports that name it; a tenant's one called DefaultGroup also has
// those of its secured ports that name none.
type SecurityGroup struct {
	Meta
	// Stateful groups let answers to what they allow pass, both ways. Those of a stateless one need a rule of their own.
	Stateful bool
}

// DefaultGroup is the name of the group of a tenant's secured ports that do not say which groups they are in.
const DefaultGroup = "default"

// Direction is which way packets go, as the VM sees it.
type Direction string

// Directions.
const (
	Ingress Direction = "ingress" // to the VM
	Egress  Direction = "egress"  // from the VM
)

// EtherType is the address family that a security group rule is about.
type EtherType string

// Families.
const (
	IPv4 EtherType = "IPv4"
	IPv6 EtherType = "IPv6"
)

// SecurityGroupRule allows packets. What is not given does not count. The remote side is the source of what comes in and
// the destination of what goes out; ports are always the destination's.
type SecurityGroupRule struct {
	Meta
	GroupID   uuid.UUID
	Direction Direction
	EtherType EtherType // "": IPv4
	Protocol  uint8     // 0: any; of IPv6 after extension headers
	// Ports of TCP, UDP and SCTP: both or none.
	PortMin, PortMax *uint16
	// ICMPType, and with it ICMPCode, of ICMP and ICMPv6.
	ICMPType, ICMPCode *uint8

	// At most one of these: a subnet, the addresses of a security group's ports, or an address group.
	RemotePrefix         netip.Prefix
	RemoteGroupID        uuid.UUID
	RemoteAddressGroupID uuid.UUID
}

// Kind implements Object.
func (*SecurityGroup) Kind() Kind { return KindSecurityGroup }

// Kind implements Object.
func (*SecurityGroupRule) Kind() Kind { return KindSecurityGroupRule }

func (r *SecurityGroupRule) clone() SecurityGroupRule {
	c := *r
	c.PortMin, c.PortMax, c.ICMPType, c.ICMPCode = clonePtr(r.PortMin), clonePtr(r.PortMax), clonePtr(r.ICMPType), clonePtr(r.ICMPCode)
	return c
}

// content is all that a rule says, apart from what it is called: two rules of a group that say the same are one too many.
func (r *SecurityGroupRule) content() string {
	number := func(p *uint16) int { return int(value(p, 65535)) }
	octet := func(p *uint8) int { return int(value(p, 255)) }
	return fmt.Sprint(r.Direction, r.EtherType, r.Protocol, number(r.PortMin), number(r.PortMax), r.ICMPType != nil, octet(r.ICMPType),
		r.ICMPCode != nil, octet(r.ICMPCode), r.RemotePrefix, r.RemoteGroupID, r.RemoteAddressGroupID)
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func (g *Graph) validateSecurityGroupRule(r *SecurityGroupRule) error {
	if err := g.exists(r, "security_group", KindSecurityGroup, r.GroupID); err != nil {
		return err
	}
	if r.Direction != Ingress && r.Direction != Egress {
		return fieldErr(r, "direction", fmt.Sprintf("%q is none of ingress, egress", r.Direction))
	}
	if r.EtherType != IPv4 && r.EtherType != IPv6 {
		return fieldErr(r, "ethertype", fmt.Sprintf("%q is none of IPv4, IPv6", r.EtherType))
	}
	for _, check := range []func(*SecurityGroupRule) (field, reason string){badProtocol, badPorts, badICMP, badRemote} {
		if field, reason := check(r); reason != "" {
			return fieldErr(r, field, reason)
		}
	}
	if id := r.RemoteGroupID; id != uuid.Nil && g.Get(KindSecurityGroup, id) == nil {
		return fieldErr(r, "remote_group", fmt.Sprintf("no security group %s", id))
	}
	if id := r.RemoteAddressGroupID; id != uuid.Nil && g.Get(KindAddressGroup, id) == nil {
		return fieldErr(r, "remote_address_group", fmt.Sprintf("no address group %s", id))
	}
	return nil
}

func badProtocol(r *SecurityGroupRule) (field, reason string) {
	switch {
	case r.Protocol == protoICMP && r.EtherType == IPv6:
		return "protocol", "icmp is of IPv4: write icmpv6"
	case r.Protocol == protoICMPv6 && r.EtherType == IPv4:
		return "protocol", "icmpv6 is of IPv6: write icmp, or ethertype IPv6"
	}
	return "", ""
}

func badPorts(r *SecurityGroupRule) (field, reason string) {
	if r.PortMin == nil && r.PortMax == nil {
		return "", ""
	}
	field = "port_range_min"
	switch {
	case r.Protocol != protoTCP && r.Protocol != protoUDP && r.Protocol != protoSCTP:
		return field, "needs protocol to be tcp, udp or sctp"
	case r.PortMax == nil:
		return "port_range_max", "is missing: write the same number again for a single port"
	case r.PortMin == nil:
		return field, "is missing"
	case *r.PortMin == 0:
		return field, "0 is no port"
	case *r.PortMin > *r.PortMax:
		return field, fmt.Sprintf("%d is more than port_range_max %d", *r.PortMin, *r.PortMax)
	}
	return "", ""
}

func badICMP(r *SecurityGroupRule) (field, reason string) {
	switch {
	case r.ICMPCode != nil && r.ICMPType == nil:
		return "icmp_code", "needs icmp_type"
	case r.ICMPType != nil && r.Protocol != protoICMP && r.Protocol != protoICMPv6:
		return "icmp_type", "needs protocol to be icmp or icmpv6"
	}
	return "", ""
}

func badRemote(r *SecurityGroupRule) (field, reason string) {
	given := ""
	for _, x := range []struct {
		field string
		is    bool
	}{
		{"remote_ip_prefix", r.RemotePrefix.IsValid()}, {"remote_group", r.RemoteGroupID != uuid.Nil},
		{"remote_address_group", r.RemoteAddressGroupID != uuid.Nil},
	} {
		if x.is && given != "" {
			return x.field, "cannot be given together with " + given
		}
		if x.is {
			given = x.field
		}
	}
	if r.RemotePrefix == (netip.Prefix{}) {
		return "", ""
	}
	if reason := badNetwork(r.RemotePrefix); reason != "" {
		return "remote_ip_prefix", reason
	}
	if r.RemotePrefix.Addr().Is4() != (r.EtherType == IPv4) {
		return "remote_ip_prefix", fmt.Sprintf("%s is not of ethertype %s", r.RemotePrefix, r.EtherType)
	}
	return "", ""
}

// MaxSecurityGroups bounds the groups that one port names.
const MaxSecurityGroups = 64

func (g *Graph) validatePortGroups(p *Port) error {
	if p.SecurityGroups == nil {
		return nil
	}
	if !p.PortSecurity {
		return fieldErr(p, "security_groups", "need port_security: groups know a VM by its addresses")
	}
	if len(p.SecurityGroups) > MaxSecurityGroups {
		return fieldErr(p, "security_groups", fmt.Sprintf("%d are more than %d", len(p.SecurityGroups), MaxSecurityGroups))
	}
	for i, id := range p.SecurityGroups {
		field := fmt.Sprintf("security_groups[%d]", i)
		if slices.Index(p.SecurityGroups, id) < i {
			return fieldErr(p, field, fmt.Sprintf("security group %s is there twice", id))
		}
		if err := g.exists(p, field, KindSecurityGroup, id); err != nil {
			return err
		}
	}
	return nil
}

// Default is the security group of a tenant's secured ports that name none; nil when it does not exist.
func (g *Graph) Default(tenant string) *SecurityGroup {
	id, ok := g.unique[g.uniqueKeys(&SecurityGroup{Meta: Meta{Name: DefaultGroup, Tenant: tenant}})[0]]
	if !ok {
		return nil
	}
	s, _ := g.Get(KindSecurityGroup, id).(*SecurityGroup)
	return s
}

// InDefault reports whether the port is in its tenant's default group without saying so, once there is one.
func (p *Port) InDefault() bool { return p.PortSecurity && p.SecurityGroups == nil }

// checkDefault refuses to take the default group from ports that rely on it: they would stand open.
func (g *Graph) checkDefault(c Change) error {
	s, ok := c.Old.(*SecurityGroup)
	if !ok || s.Name != DefaultGroup || g.Default(s.Tenant) != nil {
		return nil
	}
	var by []Ref
	for o := range g.All(KindPort) {
		if p := o.(*Port); p.Tenant == s.Tenant && p.InDefault() {
			by = append(by, RefTo(o))
		}
	}
	if len(by) == 0 {
		return nil
	}
	slices.SortFunc(by, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:])) })
	return &ReferenceError{Ref: RefTo(c.Old), By: by}
}
