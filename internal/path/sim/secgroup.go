package sim

import (
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// guard holds what a VM sends (out) or is to get against the security groups of its port. False: the branch has ended.
//
//  1. what the link itself needs: ARP, neighbour discovery, the VM's DHCP client and multicast listener reports
//  2. return traffic of connections that the rules still allow
//  3. the rules; what they allow begins a connection
//  4. the rest is dropped
func (c *Context) guard(p *view.Port, out bool, b *branch) bool {
	if p.SecurityGroups == nil || !p.Exterior() {
		return true
	}
	a := asked{port: p, out: out}
	switch c.read(match.EthType).EthType {
	case packet.EthTypeARP:
		return c.pass(&a, b, "ARP")
	case packet.EthTypeIPv4:
	case packet.EthTypeIPv6:
		a.six = true
	default:
		return c.forbid(&a, b, drop.GroupDrop)
	}
	if c.linkNeeds(a.six, out, b) {
		return c.pass(&a, b, "what the link needs")
	}
	if !c.hasPorts(b) {
		return false
	}
	a.packet(c, b)
	stateful := false
	for _, id := range p.SecurityGroups {
		c.depend(tag.Tag{Kind: tag.Chain, ID: id})
		g := c.topoSecurity(id)
		stateful = stateful || g != nil && g.Stateful
	}
	if by := c.judge(&a, false); by.rule != nil {
		return c.allow(&a, b, by, "")
	}
	if !stateful {
		return c.forbid(&a, b, drop.GroupDrop)
	}
	return c.guardConnection(&a, b)
}

// guardConnection is the part of guard about connections.
func (c *Context) guardConnection(a *asked, b *branch) bool {
	t, quoted, tracked := c.tracked(b)
	if !tracked {
		if by := c.judge(a, true); by.rule != nil {
			return c.allow(a, b, by, "")
		}
		return c.forbid(a, b, drop.GroupDrop)
	}
	_, reply, known := c.connection(tag.Connection, a.port.ID, &t, quoted)
	switch {
	case known && (reply || quoted):
		c.Mask |= c.scratch.loose // by the ports of the packet that it answers
		first := a.first(t, reply)
		by := c.judge(&first, true)
		if by.rule == nil {
			return c.forbid(a, b, drop.ConnRevoked)
		}
		return c.allow(a, b, by, "return traffic of what it allows: ")
	case quoted && !known:
		return c.forbid(a, b, drop.ConnInvalid)
	case !known && c.Hint.answer(&t):
		first := a.first(t, true)
		if by := c.judge(&first, true); by.rule != nil {
			c.begin(b, a.port.ID, t.Reverse())
			return c.allow(a, b, by, "return traffic of what it allows: ")
		}
	case !known && !c.begins():
		c.UserSpace = true // flags are not in the key
		return c.forbid(a, b, drop.ConnInvalid)
	}
	by := c.judge(a, true)
	if by.rule == nil {
		return c.forbid(a, b, drop.GroupDrop)
	}
	if !known {
		c.begin(b, a.port.ID, t)
	}
	return c.allow(a, b, by, "")
}

// asked is what rules are asked about: a packet, or the one that began the connection to which it belongs.
type asked struct {
	port  *view.Port
	out   bool // from the VM
	six   bool
	proto uint8
	// remote is the address at the other end; service is the destination port, of ICMP type<<8|code. Those that a rule
	// looks at go into the mask.
	remote               match.Addr
	service              uint16
	hasService           bool
	readRemote, readPort match.Mask
}

// packet asks about the packet at hand.
func (a *asked) packet(c *Context, b *branch) {
	a.proto = c.read(match.Proto).Proto
	if a.out {
		a.remote, a.readRemote = b.dst, match.Dst&^b.written
	} else {
		a.remote, a.readRemote = b.src, match.Src&^b.written
	}
	switch a.proto {
	case packet.ProtoICMP, packet.ProtoICMPv6:
		a.service, a.hasService, a.readPort = b.srcPort, true, match.SrcPort&^b.written
	default:
		a.service, a.hasService, a.readPort = b.dstPort, true, match.DstPort&^b.written
	}
}

// first asks about the packet that began the connection of which t is a direction: the answer's (reply), or that of the first
// packet itself, which an error may go as well.
func (a *asked) first(t match.Tuple, reply bool) asked {
	f := asked{port: a.port, out: a.out, six: a.six, proto: t.Proto, hasService: true}
	if reply {
		t, f.out = t.Reverse(), !a.out
	}
	if f.remote = t.Src; f.out {
		f.remote = t.Dst
	}
	switch t.Proto {
	case packet.ProtoICMP:
		f.service = uint16(packet.ICMPEchoRequest) << 8
	case packet.ProtoICMPv6:
		f.service = uint16(packet.ICMPv6EchoRequest) << 8
	default:
		f.service = t.DstPort
	}
	return f
}

// ruling is the rule that allows, with its group; no rule: none does.
type ruling struct {
	group *view.SecurityGroup
	rule  *view.Rule
}

// judge looks for a rule that allows, in the port's groups that are stateful, or in those that are not.
func (c *Context) judge(a *asked, stateful bool) ruling {
	for _, id := range a.port.SecurityGroups {
		g := c.topoSecurity(id)
		if g == nil || g.Stateful != stateful {
			continue
		}
		rules := &g.Ingress
		if a.out {
			rules = &g.Egress
		}
		list := rules.Of(a.six, a.proto)
		for i := range list {
			if x := &list[i]; c.allows(x, a) {
				c.Rules = append(c.Rules, x.Rule)
				return ruling{g, x.Rule}
			}
		}
	}
	return ruling{}
}

func (c *Context) allows(x *view.Allow, a *asked) bool {
	if x.Ports != view.AllPorts {
		if !a.hasService {
			return false
		}
		if !c.readWithin(a.readPort, a.service, PortRange(x.Ports)) {
			return false
		}
	}
	if x.Any {
		return true
	}
	c.Mask |= a.readRemote
	if x.Group != uuid.Nil {
		return c.grouped(x.Group, a.remote)
	}
	return x.Prefix.Contains(&a.remote)
}

// linkNeeds reports what passes whatever the rules say, as a VM can have no address without it: neighbour and router discovery
// (RFC 4861), multicast listener discovery (RFC 3810), and its DHCP client. What is said in them is for port security to judge.
func (c *Context) linkNeeds(six, out bool, b *branch) bool {
	proto := c.read(match.Proto).Proto
	switch {
	case proto != packet.ProtoUDP && !(six && proto == packet.ProtoICMPv6), c.read(match.Frag).Frag == match.FragLater:
		return false
	case proto == packet.ProtoUDP:
		if !out {
			return false
		}
		server, client := uint16(dhcpServer), uint16(dhcpClient)
		if six {
			server, client = dhcpv6Server, dhcpv6Client
		}
		return c.readDHCPPort(b) == server && c.readSrcPort(b) == client
	}
	switch typ := uint8(c.readSrcPort(b) >> 8); typ {
	case packet.ICMPv6NeighbourSol, packet.ICMPv6NeighbourAdv:
		return true
	case packet.ICMPv6RouterSol, mldReport, mldDone, mldv2:
		return out
	case packet.ICMPv6RouterAdv, mldQuery:
		return !out
	}
	return false
}

const (
	dhcpv6Server = 547 // RFC 8415 section 7.2
	mldQuery     = 130
)

func (a *asked) way() string {
	if a.out {
		return "egress"
	}
	return "ingress"
}

func (c *Context) pass(a *asked, b *branch, what string) bool {
	if b.node != nil {
		b.node.Add("sim", "port "+a.port.Name, "security groups, %s: %s: accept", a.way(), what)
	}
	return true
}

func (c *Context) allow(a *asked, b *branch, by ruling, why string) bool {
	if b.node != nil {
		b.node.Add("sim", "port "+a.port.Name, "security groups, %s: group %s, rule %s (%s): %saccept",
			a.way(), by.group.Name, by.rule.Label(), by.rule.Text(c.Topo.AddressGroup), why)
	}
	return true
}

func (c *Context) forbid(a *asked, b *branch, why drop.Reason) bool {
	switch {
	case b.node == nil:
	case why == drop.ConnInvalid:
		b.node.Add("sim", "port "+a.port.Name, "security groups, %s: of no known connection, and begins none", a.way())
	default:
		names := make([]string, 0, len(a.port.SecurityGroups))
		for _, id := range a.port.SecurityGroups {
			if g := c.Topo.SecurityGroup(id); g != nil {
				names = append(names, g.Name)
			}
		}
		what := "it"
		if why == drop.ConnRevoked {
			what = "what it answers"
		}
		b.node.Add("sim", "port "+a.port.Name, "security groups, %s: no rule of [%s] allows %s", a.way(), strings.Join(names, ", "), what)
	}
	c.drop(b, ResultDrop, why)
	return false
}
