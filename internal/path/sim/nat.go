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

// reverseNAT undoes, for an answer, what a device did to the packets it answers: to their source (kind
// tag.Translation) or destination (tag.Destination).
func (c *Context) reverseNAT(k tag.Kind, device uuid.UUID, b *branch) natResult {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return natPassed
	}
	other, reply, ok := c.connection(k, device, &t, quoted)
	if !ok || !reply {
		return natPassed
	}
	c.rewrite(b, t, other.Reverse(), quoted)
	b.translate(translates(k).opposite()|translatedBack, device)
	return natApplied
}

// knownNAT treats a packet of a known connection as those before it. ended: there is nothing left for the caller to do.
func (c *Context) knownNAT(k tag.Kind, device uuid.UUID, b *branch, t *match.Tuple, quoted bool) (r natResult, ended bool) {
	other, reply, ok := c.connection(k, device, t, quoted)
	switch {
	case ok && reply:
		return natPassed, true // an answer, which has been or will be translated the other way round
	case ok:
		c.rewrite(b, *t, other.Reverse(), quoted)
		b.translate(translates(k), device)
		return natApplied, true
	case quoted:
		return c.natDrop(b, drop.NatProtocol), true // RFC 5508 section 4.2: about a connection that nobody knows
	}
	return natPassed, false
}

// translated says which ends of a packet the device at hand has translated.
type translated uint8

const (
	translatedSrc translated = 1 << iota
	translatedDst
	translatedBack // it is an answer
	bothEnds       = translatedSrc | translatedDst
)

func translates(k tag.Kind) translated {
	if k == tag.Destination {
		return translatedDst
	}
	return translatedSrc
}

// translate notes that a device or a port has translated some ends.
func (b *branch) translate(ends translated, by uuid.UUID) {
	b.nat |= ends
	if ends&translatedSrc != 0 {
		b.by[0] = by
	}
	if ends&translatedDst != 0 {
		b.by[1] = by
	}
}

// sourceBy tells whether a device or port has translated the source: now, or when the packet passed it before, and nobody has since.
func (b *branch) sourceBy(id uuid.UUID) bool { return b.nat&translatedSrc != 0 || b.by[0] == id }

// destinationBy is the same of the destination.
func (b *branch) destinationBy(id uuid.UUID) bool { return b.nat&translatedDst != 0 || b.by[1] == id }

func (t translated) opposite() translated { return t ^ bothEnds }

// maxChoices bounds how many destinations are tried for one new connection.
const maxChoices = 16

// chooser proposes destinations for new connections.
type chooser interface {
	// choose is the n-th choice (from 0) for a packet with tuple t; port 0 keeps the packet's. The same question
	// has the same answer. False: there are no more.
	choose(t *match.Tuple, n int) (addr match.Addr, port uint16, ok bool)
}

// destinationNAT translates the destination of a packet that begins a connection to what to chooses, and all later
// ones of the connection likewise. device is whose connection it becomes: the answers are translated back by
// reverseNAT(tag.Destination, device, ...), at a place that they pass.
func (c *Context) destinationNAT(device uuid.UUID, b *branch, to chooser) natResult {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return c.natDrop(b, why)
	}
	if r, ended := c.knownNAT(tag.Destination, device, b, &t, quoted); ended {
		return r
	}
	for n := range maxChoices {
		c.scratch.asked = t // there, so that asking does not allocate
		addr, port, ok := to.choose(&c.scratch.asked, n)
		if !ok {
			break
		}
		as := t
		if as.Dst = addr; port != 0 && t.Proto != packet.ProtoICMP && t.Proto != packet.ProtoICMPv6 {
			as.DstPort = port
		}
		if c.connect(tag.Destination, device, b, t, as) {
			return natApplied
		}
	}
	return c.natDrop(b, drop.NatConflict)
}

// connect proposes a new connection, whose packets with tuple t become as, and rewrites the one at hand. False: an answer
// to it could not be told from another connection's.
func (c *Context) connect(k tag.Kind, device uuid.UUID, b *branch, t, as match.Tuple) bool {
	reply := as.Reverse()
	c.depend(tag.Of(k, device, &reply))
	c.scratch.asked = reply
	if _, _, _, taken := c.State.Connection(k, device, &c.scratch.asked); taken || c.proposed(b, k, device, &reply) {
		return false
	}
	c.propose(b, Learn{Kind: LearnConnection, Conn: k, Device: device, Port: c.scratch.ingress, Orig: t, Reply: reply})
	c.rewrite(b, t, as, false)
	b.translate(translates(k), device)
	return true
}

// proposed tells whether a connection that is answered like this has been proposed for the packet already: a packet can pass a device
// several times, translated by others in between.
func (c *Context) proposed(b *branch, k tag.Kind, device uuid.UUID, reply *match.Tuple) bool {
	for last := b.proposal; last > 0; {
		p := &c.scratch.proposals[last-1]
		if l := &p.learn; l.Kind == LearnConnection && l.Conn == k && l.Device == device && l.Reply == *reply {
			return true
		}
		last = p.prev
	}
	return false
}

// sourceNAT translates the source to addr and a port from lo to hi that a device uses for no other connection
// to the same destination. A packet of a known connection is translated as those before it.
func (c *Context) sourceNAT(device uuid.UUID, b *branch, addr match.Addr, lo, hi uint16) natResult {
	r, exhausted := c.tryNAT(device, b, addr, lo, hi)
	if exhausted {
		return c.natDrop(b, drop.NatExhausted)
	}
	return r
}

// tryNAT is sourceNAT that leaves the branch as it is when addr has no more ports.
func (c *Context) tryNAT(device uuid.UUID, b *branch, addr match.Addr, lo, hi uint16) (r natResult, exhausted bool) {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return c.natDrop(b, why), false
	}
	if r, ended := c.knownNAT(tag.Translation, device, b, &t, quoted); ended {
		return r, false
	}
	c.scratch.asked = t
	want := c.Hint.port(addr, t.Proto)
	port, exhausted := c.State.FreePort(device, &c.scratch.asked, addr, lo, hi, want)
	if port == 0 {
		leased := tag.Tag{Kind: tag.Ports, ID: device, Addr: addr}
		c.depend(leased)
		if exhausted {
			return natEnded, true
		}
		if b.node != nil {
			b.node.Add("sim", "NAT", "not yet: no ports of %s are leased that are free for %s", addr, t.Dst)
		}
		c.Lease = Lease{Lo: lo, Hi: hi, Want: want}
		c.wait(leased)
		return natEnded, false
	}
	to := t
	to.Src, to.SrcPort = addr, port
	for i, reply := uint16(1), to.Reverse(); c.proposed(b, tag.Translation, device, &reply); i++ { // State does not know of it: ask for a neighbour
		if i > 2 {
			return c.natDrop(b, drop.NatConflict), false
		}
		to.SrcPort, _ = c.State.FreePort(device, &c.scratch.asked, addr, lo, hi, port^i)
		reply.DstPort = to.SrcPort
	}
	c.propose(b, Learn{Kind: LearnConnection, Conn: tag.Translation, Device: device, Port: c.scratch.ingress, Orig: t, Reply: to.Reverse()})
	c.rewrite(b, t, to, false)
	b.translate(translatedSrc, device)
	return natApplied, false
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
