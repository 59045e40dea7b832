package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// alter does to the packet what a rule says, before its verdict. natPassed: it cannot be done to such a packet.
func (c *Context) alter(r *view.Rule, at *place, b *branch) natResult {
	switch {
	case r.NAT != nil:
		return c.ruleNAT(r.NAT, at, b)
	case r.VLAN != 0:
		return c.ruleVLAN(r.VLAN, b)
	case r.DSCP != nil:
		if !c.setDSCP(*r.DSCP, b) {
			return natPassed
		}
	case r.Verdict == view.VerdictRedirect && r.Redirect.FailOpen && !c.isUp(r.Redirect.Port):
		return natPassed
	}
	return natApplied
}

// ruleVLAN changes the tag. A frame has one at most: what is behind a second one is not in the key.
func (c *Context) ruleVLAN(to view.VLANChange, b *branch) natResult {
	tagged := c.readVLAN(b) != 0
	switch {
	case to == view.PopVLAN && (!tagged || c.isDoubleTagged()), to != view.PopVLAN && tagged:
		return natPassed
	case to == view.PopVLAN:
		b.setVLAN(0)
	default:
		b.setVLAN(match.VLANPresent | uint16(to))
	}
	return natApplied
}

// setDSCP marks an IP packet (RFC 2474); ECN is the hosts' business (RFC 3168). False: it is none.
func (c *Context) setDSCP(dscp uint8, b *branch) bool {
	const ecn = 3
	if !c.hasIP() {
		return false
	}
	b.setTOS(dscp<<2 | c.readTOS(b)&ecn)
	return true
}

// isDoubleTagged reports a tag behind the outer one.
func (c *Context) isDoubleTagged() bool {
	t := c.read(match.EthType).EthType
	return t == packet.EthTypeVLAN || t == packet.EthTypeQinQ
}

// ruleNAT translates one end of the packet as a rule says; each device and port does that once to each end at
// most, also when the packet comes by again. What is translated already stays so: the answers could not be translated back twice.
func (c *Context) ruleNAT(n *view.NAT, at *place, b *branch) natResult {
	if !c.hasIP() || c.isND() { // neighbour discovery has its addresses in its body too
		return natPassed
	}
	if n.Reverse {
		return c.reverseNAT(kindOf(n), at.id, b)
	}
	src, dst := c.readIPs(b)
	end, mine, done := dst, translatedDst, b.destinationBy(at.id)
	if n.Source {
		end, mine, done = src, translatedSrc, b.sourceBy(at.id)
	}
	switch {
	case done, end.Is4() != n.Is4(), !isHost(end), !c.isIP(b):
		return natPassed
	// To translate an answer is to translate it back.
	case n.Source && at.rules.HasDestination(&src) && c.reverseNAT(tag.Destination, at.id, b) == natApplied,
		!n.Source && at.rules.HasSource(&dst) && c.reverseNAT(tag.Translation, at.id, b) == natApplied:
		return natApplied
	case n.Static() && end == n.Targets[0].From: // it is to be left alone by later rules
		b.translate(mine, at.id)
		return natApplied
	case n.Static():
		return c.ruleStaticNAT(n, at, b)
	case n.Source:
		return c.ruleSourceNAT(n, at, b)
	}
	return c.destinationNAT(at.id, b, c.choices(n))
}

func kindOf(n *view.NAT) tag.Kind {
	if n.Source {
		return tag.Translation
	}
	return tag.Destination
}

// ruleStaticNAT replaces an address alone. What has ports or an identifier becomes a connection, whose answers are
// translated back; of everything else each packet is translated for itself.
func (c *Context) ruleStaticNAT(n *view.NAT, at *place, b *branch) natResult {
	k, to := kindOf(n), n.Targets[0].From
	t, quoted, why := c.tuple(b)
	if why == drop.None {
		other, reply, ok := c.connection(k, at.id, &t, quoted)
		switch {
		case ok && reply:
			return natPassed
		case ok:
			c.rewrite(b, t, other.Reverse(), quoted)
			b.translate(translates(k), at.id)
			return natApplied
		case !quoted:
			as := t
			if n.Source {
				as.Src = to
			} else {
				as.Dst = to
			}
			if !c.connect(k, at.id, b, t, as) {
				return c.natDrop(b, drop.NatConflict)
			}
			return natApplied
		}
	}
	c.staticNAT(b, n.Source, to)
	b.translate(translates(k), at.id)
	return natApplied
}

// maxSources bounds how many addresses are tried for one new connection.
const maxSources = 16

// ruleSourceNAT gives all connections of one source the same address, as long as that has ports (RFC 4787 REQ-2).
func (c *Context) ruleSourceNAT(n *view.NAT, at *place, b *branch) natResult {
	first, count := addrHash(&b.src), n.Addrs()
	for i := range min(count, maxSources) {
		addr, lo, hi := n.Addr(first + i)
		if hinted, ok := c.Hint.addr(true); ok && i == 0 && n.Has(&hinted, 0) {
			addr = hinted
		}
		if lo == 0 {
			lo, hi = masqueradeLow, masqueradeHigh
		}
		r, exhausted := c.tryNAT(at.id, b, addr, lo, hi)
		if !exhausted {
			return r
		}
	}
	return c.natDrop(b, drop.NatExhausted)
}

// choices proposes the targets of a rule, in an order that the packet decides: the worker is not told which it was. A flow
// that is being adopted has decided before.
func (c *Context) choices(n *view.NAT) chooser {
	c.scratch.choice = ruleChoice{n, c.Hint}
	return &c.scratch.choice
}

type ruleChoice struct {
	*view.NAT
	hint Hint
}

// choose implements chooser.
func (r *ruleChoice) choose(t *match.Tuple, n int) (addr match.Addr, port uint16, ok bool) {
	if uint64(n) >= r.Pairs() {
		return addr, 0, false
	}
	if addr, ok := r.hint.addr(false); ok && n == 0 {
		if port = r.hint.dstPort(); r.Has(&addr, port) {
			return addr, port, true
		}
	}
	ports := uint64(t.SrcPort)<<16 | uint64(t.DstPort)
	h := (addrHash(&t.Src) + addrHash(&t.Dst) ^ ports*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9 >> 32
	addr, port = r.Pair(h + uint64(n))
	return addr, port, true
}

// restore translates answers back to what the rules of a device or port have translated, at the given ends, unless a
// rule has done so already. Only what comes from, or goes to, an address that they translate to is looked up.
func (c *Context) restore(t *view.Translated, id uuid.UUID, ends translated, b *branch) {
	if t == nil || !c.hasIP() || c.isND() {
		return
	}
	src, dst := c.readIPs(b)
	if !c.isIP(b) {
		return
	}
	if c.isICMPError() {
		c.relatedNAT(id, ends&^b.nat, b)
		return
	}
	if ends&^b.nat&translatedDst != 0 && t.HasSource(&dst) && c.reverseNAT(tag.Translation, id, b) == natApplied {
		return
	}
	if ends&^b.nat&translatedSrc != 0 && t.HasDestination(&src) {
		c.reverseNAT(tag.Destination, id, b)
	}
}

// relatedNAT translates an ICMP error as what it is about: the rule that did that may well be for TCP alone.
func (c *Context) relatedNAT(id uuid.UUID, ends translated, b *branch) {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return
	}
	for _, k := range [...]tag.Kind{tag.Translation, tag.Destination} {
		other, reply, ok := c.connection(k, id, &t, quoted)
		changes := translates(k)
		if reply {
			changes = changes.opposite()
		}
		if ok && changes&ends != 0 {
			c.rewrite(b, t, other.Reverse(), quoted)
			b.translate(changes, id)
			return
		}
	}
}
