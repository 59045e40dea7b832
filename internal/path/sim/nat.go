package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// natResult is what became of a packet that was to be translated.
type natResult uint8

const (
	natPassed  natResult = iota // nothing to translate
	natApplied                  // the branch has been rewritten
	natEnded                    // the branch was dropped, or the simulation waits
)

// reverseNAT undoes, for an answer, what a device did to the packets it answers.
func (c *Context) reverseNAT(device uuid.UUID, b *branch) natResult {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return natPassed
	}
	other, reply, ok := c.connection(tag.Translation, device, &t, quoted)
	if !ok || !reply {
		return natPassed
	}
	c.rewrite(b, t, other.Reverse(), quoted)
	return natApplied
}

// sourceNAT translates the source to addr and a port from lo to hi that a device uses for no other connection
// to the same destination. A packet of a known connection is translated as those before it.
func (c *Context) sourceNAT(device uuid.UUID, b *branch, addr match.Addr, lo, hi uint16) natResult {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return c.natDrop(b, why)
	}
	other, reply, ok := c.connection(tag.Translation, device, &t, quoted)
	switch {
	case ok && reply:
		return natPassed // the answer to what was translated the other way round
	case ok:
		c.rewrite(b, t, other.Reverse(), quoted)
		return natApplied
	case quoted:
		return c.natDrop(b, drop.NatProtocol) // RFC 5508 section 4.2: about a connection that nobody knows
	}
	want := c.Hint.port(addr, t.Proto)
	port, exhausted := c.State.FreePort(device, &c.scratch.asked, addr, lo, hi, want)
	if port == 0 {
		leased := tag.Tag{Kind: tag.Ports, ID: device, Addr: addr}
		c.depend(leased)
		if exhausted {
			return c.natDrop(b, drop.NatExhausted)
		}
		if b.node != nil {
			b.node.Add("sim", "NAT", "not yet: no ports of %s are leased that are free for %s", addr, t.Dst)
		}
		c.Lease = Lease{Lo: lo, Hi: hi, Want: want}
		c.wait(leased)
		return natEnded
	}
	to := t
	to.Src, to.SrcPort = addr, port
	c.propose(b, Learn{Kind: LearnConnection, Conn: tag.Translation, Device: device, Port: c.scratch.ingress, Orig: t, Reply: to.Reverse()})
	c.rewrite(b, t, to, false)
	return natApplied
}

func (c *Context) natDrop(b *branch, why drop.Reason) natResult {
	c.drop(b, ResultErrorDrop, why)
	return natEnded
}

// rewrite makes a branch whose tuple is from one of tuple to. An ICMP error is rewritten inside, and its own
// addresses follow those that it quotes (RFC 5508 section 4).
func (c *Context) rewrite(b *branch, from, to match.Tuple, quoted bool) {
	if b.node != nil {
		b.node.Add("sim", "NAT", "%s:%d > %s:%d becomes %s:%d > %s:%d", from.Src, from.SrcPort, from.Dst, from.DstPort, to.Src, to.SrcPort, to.Dst, to.DstPort)
	}
	if from.Src != to.Src {
		b.setSrc(to.Src)
	}
	if from.Dst != to.Dst {
		b.setDst(to.Dst)
	}
	switch {
	case quoted:
		c.Quoted = to.Reverse()
	case from.Proto == packet.ProtoICMP || from.Proto == packet.ProtoICMPv6:
		if id := to.SrcPort | to.DstPort; id != b.dstPort { // one of them is 0
			b.setDstPort(id)
		}
	default:
		if from.SrcPort != to.SrcPort {
			b.setSrcPort(to.SrcPort)
		}
		if from.DstPort != to.DstPort {
			b.setDstPort(to.DstPort)
		}
	}
}

// staticNAT replaces one address for another, whatever the protocol: the source or the destination.
func (c *Context) staticNAT(b *branch, source bool, addr match.Addr) {
	if c.isICMPError() {
		if from, quoted, why := c.tuple(b); quoted && why == drop.None {
			to := from
			if source {
				to.Src = addr
			} else {
				to.Dst = addr
			}
			c.rewrite(b, from, to, true)
			return
		}
	}
	if b.node != nil {
		is, what := b.dst, "destination"
		if source {
			is, what = b.src, "source"
		}
		b.node.Add("sim", "NAT", "%s %s becomes %s", what, is, addr)
	}
	if source {
		b.setSrc(addr)
	} else {
		b.setDst(addr)
	}
}
