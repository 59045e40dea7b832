package sim

import (
	"math/bits"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// fits holds the packet, as rewritten so far, against a condition. It stops at the first field that does not fit, and
// reads, and so puts into the mask, no field of the key that it did not come to.
func (c *Context) fits(m *view.Condition, at *place, b *branch) bool {
	// The fragment policy is not inverted; it comes last so that a packet that does not fit anyway has not read it.
	return c.fitsAll(m, at.out, b) != m.Invert &&
		(m.Fragment <= view.FragmentsFollow || c.fitsFragment(m.Fragment) != (m.Not&model.MatchFragment != 0)) &&
		(m.Connection == model.ConnectionAny || c.isReturn(b, at.id) != ((m.Connection == model.ConnectionReturn) == (m.Not&model.MatchConnection != 0)))
}

func (c *Context) fitsAll(m *view.Condition, out *view.Port, b *branch) bool {
	for left := m.Given; left != 0; left &= left - 1 {
		field := left & -left
		if c.fitsField(m, field, out, b) == (m.Not&field != 0) {
			return false
		}
	}
	return true
}

func (c *Context) fitsFragment(want view.FragmentPolicy) bool {
	frag := c.read(match.Frag).Frag
	switch want {
	case view.FragmentsHeader:
		return frag != match.FragLater
	case view.FragmentsNonheader:
		return frag == match.FragLater
	}
	return frag == match.FragNone
}

// Indexes of the fields, which a switch can jump by.
const (
	inPorts = iota
	outPorts
	inPortGroup
	outPortGroup
	portGroup
	traversed
	ethType
	ethSrc
	ethDst
	vlan
	noVLAN
	tos
	proto
	src
	dst
	originalDst
	dstRewritten
	srcGroup
	dstGroup
	srcPorts
	dstPorts
	icmpTypes
	icmpCodes
	quotedSrc
	quotedDst
)

// fitsField tests one field, not inverted. What the packet does not have does not fit.
func (c *Context) fitsField(m *view.Condition, field model.MatchField, out *view.Port, b *branch) bool {
	switch bits.TrailingZeros32(uint32(field)) {
	case inPorts:
		return b.in != nil && slices.Contains(m.InPorts, b.in.ID)
	case outPorts:
		return out != nil && slices.Contains(m.OutPorts, out.ID)
	case inPortGroup:
		return inGroup(b.in, m.InPortGroup)
	case outPortGroup:
		return inGroup(out, m.OutPortGroup)
	case portGroup:
		return inGroup(c.scratch.origin, m.PortGroup)
	case traversed:
		return c.traversed(m.Traversed, b)
	case ethType:
		return c.read(match.EthType).EthType == m.EthType
	case ethSrc:
		return masked(c.readSrc(b), &m.EthSrc)
	case ethDst:
		return masked(c.readDst(b), &m.EthDst)
	case vlan:
		tci := c.readVLAN(b)
		return tci != 0 && tci&vidMask == m.VLAN
	case noVLAN:
		return c.readVLAN(b) == 0
	case tos:
		return c.hasIP() && c.readTOS(b) == m.TOS
	case proto:
		return c.hasIP() && c.read(match.Proto).Proto == m.Proto
	case src:
		return c.hasAddresses() && m.Src.Contains(c.readSrcAddr(b))
	case dst:
		return c.hasAddresses() && m.Dst.Contains(c.readDstAddr(b))
	case originalDst:
		if !c.hasAddresses() {
			return false
		}
		c.Mask |= match.Dst &^ b.at.written
		return m.OriginalDst.Contains(&b.at.dst)
	case dstRewritten: // what decided that has read what it depends on
		return b.nat&translatedDst != 0
	case srcGroup:
		return c.hasAddresses() && c.grouped(m.SrcGroup, *c.readSrcAddr(b))
	case dstGroup:
		return c.hasAddresses() && c.grouped(m.DstGroup, *c.readDstAddr(b))
	case srcPorts: // that there are any follows from proto, which comes before, and the fragment policy
		return c.followed(m, b) && within(c.readSrcPort(b), &m.SrcPorts)
	case dstPorts:
		return c.followed(m, b) && within(c.readDstPort(b), &m.DstPorts)
	case icmpTypes:
		return c.followed(m, b) && within(c.readSrcPort(b)>>8, &m.ICMPTypes)
	case icmpCodes:
		return c.followed(m, b) && within(c.readSrcPort(b)&0xff, &m.ICMPCodes)
	case quotedSrc:
		q, ok := c.quoted()
		return ok && m.QuotedSrc.Contains(&q.Key.Src)
	case quotedDst:
		q, ok := c.quoted()
		return ok && m.QuotedDst.Contains(&q.Key.Dst)
	}
	return false // the model knows no other
}

// followed reports whether the ports are known, of a condition that later fragments fit with their first one; false ends the simulation.
func (c *Context) followed(m *view.Condition, b *branch) bool {
	return m.Fragment != view.FragmentsFollow || c.hasPorts(b)
}

// The packet as the branch has it: what a device has rewritten depends on no field.
func (c *Context) readSrcAddr(b *branch) *match.Addr {
	c.Mask |= match.Src &^ b.written
	return &b.src
}

func (c *Context) readDstAddr(b *branch) *match.Addr {
	c.Mask |= match.Dst &^ b.written
	return &b.dst
}

func (c *Context) readSrcPort(b *branch) uint16 {
	c.Mask |= match.SrcPort &^ b.written
	return b.srcPort
}

func (c *Context) readDstPort(b *branch) uint16 {
	c.Mask |= match.DstPort &^ b.written
	return b.dstPort
}

// readDHCPPort is the destination port if it is one of DHCP's, and else 0: packets to all others are alike to who asks for no more.
func (c *Context) readDHCPPort(b *branch) uint16 {
	if b.written&match.DstPort == 0 {
		c.Mask |= match.DHCP
	}
	return match.DHCPPort(b.dstPort)
}

func inGroup(p *view.Port, group uuid.UUID) bool { return p != nil && slices.Contains(p.Groups, group) }

func masked(a match.MAC, m *model.MACMatch) bool {
	var differ byte
	for i := range a {
		differ |= (a[i] ^ m.Addr[i]) & m.Mask[i]
	}
	return differ == 0
}

func within(x uint16, r *model.Range) bool { return r.From <= x && x <= r.To }

// hasIP reports whether the packet has the fields of an IP header.
func (c *Context) hasIP() bool {
	t := c.read(match.EthType).EthType
	return t == packet.EthTypeIPv4 || t == packet.EthTypeIPv6
}

// hasAddresses reports whether it has IP addresses, be they ARP's.
func (c *Context) hasAddresses() bool {
	return c.hasIP() || c.Packet.Key.EthType == packet.EthTypeARP
}

// quoted is the packet inside an ICMP error. What it says is not in the key, so that no flow can repeat
// the decision.
func (c *Context) quoted() (q packet.View, ok bool) {
	c.read(match.EthType | match.Proto | match.Frag | match.SrcPort)
	if !c.Packet.IsICMPError() {
		return q, false
	}
	c.UserSpace = true
	q, ok = c.Packet.Quoted()
	if ok && c.Quoted.Proto != 0 { // translated on the way
		q.Key.Src, q.Key.Dst = c.Quoted.Src, c.Quoted.Dst
	}
	return q, ok
}
