package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// proposal is a connection that a branch wants to have. It becomes a Learn if the branch reaches a port: nobody may answer to
// what was dropped on its way.
type proposal struct {
	learn Learn
	prev  int // the branch's one before, plus 1
}

// isReturn reports whether the packet belongs to a connection that device has seen the beginning of, from the other
// side; an ICMP error does when it quotes a packet of one. A packet of an unknown connection begins one, if it arrives.
func (c *Context) isReturn(b *branch, device uuid.UUID) bool {
	t, quoted, why := c.tuple(b)
	if why != drop.None {
		return false
	}
	_, reply, ok := c.connection(tag.Connection, device, &t, quoted)
	if !ok && !quoted {
		c.begin(b, device, t)
	}
	return ok && (reply || quoted)
}

// connection looks a tuple up. The outcome depends on it, and what else the packet is: an answer that is the first one.
func (c *Context) connection(k tag.Kind, device uuid.UUID, t *match.Tuple, quoted bool) (other match.Tuple, reply, ok bool) {
	c.Stateful = true
	c.depend(tag.Of(k, device, t))
	c.scratch.asked = *t
	other, reply, replied, ok := c.State.Connection(k, device, &c.scratch.asked)
	if reply && !replied && !quoted {
		c.Learn = append(c.Learn, Learn{Kind: LearnReplied, Conn: k, Device: device, Orig: *t})
	}
	return other, reply, ok
}

func (c *Context) propose(b *branch, l Learn) {
	s := &c.scratch
	s.proposals = append(s.proposals, proposal{l, b.proposal})
	b.proposal = len(s.proposals)
}

// agree makes the proposals of a branch that has arrived into what is learnt.
func (c *Context) agree(last int) {
	for s := &c.scratch; last > 0; {
		p := &s.proposals[last-1]
		if p.prev < 0 {
			return // another branch has shared this one and those before
		}
		c.Learn = append(c.Learn, p.learn)
		last, p.prev = p.prev, -1
	}
}

// agreeOwn does so for a branch that ends with a complaint, which must find back to the sender through what has been
// translated and filtered on the way. Only what counts against the sender's own bound is learnt: others are not
// to be filled with what they refuse.
func (c *Context) agreeOwn(last int) {
	for last > 0 {
		p := &c.scratch.proposals[last-1]
		if p.prev < 0 {
			return
		}
		if p.learn.Port == c.scratch.ingress {
			c.Learn = append(c.Learn, p.learn)
		}
		last = p.prev
	}
}

// tuple is the direction of a connection that the packet has now; of an ICMP error, the one in which the error
// itself goes: quoted, it is the reverse of the packet that it quotes. why says for what reason there is none.
func (c *Context) tuple(b *branch) (t match.Tuple, quoted bool, why drop.Reason) {
	k := c.read(match.EthType | match.Proto | match.Frag)
	switch {
	case k.EthType != packet.EthTypeIPv4 && k.EthType != packet.EthTypeIPv6:
		return t, false, drop.NatProtocol
	case k.Frag != match.FragNone && k.Proto == packet.ProtoSCTP:
		return t, false, drop.NatFragment // its checksum is over what is not there
	case !c.hasPorts(b):
		return t, false, drop.NatFragment // and has to wait
	}
	src, dst := c.readIPs(b)
	sport, dport := c.readPorts(b)
	t = match.Tuple{Src: src, Dst: dst, SrcPort: sport, DstPort: dport, Proto: k.Proto}
	if c.isICMPError() {
		t, ok := c.quotedTuple()
		if !ok {
			return t, false, drop.NatProtocol
		}
		return t.Reverse(), true, drop.None
	}
	if !withPorts(&t) {
		return t, false, drop.NatProtocol
	}
	return t, false, drop.None
}

// isICMPError reports an error message of either family, by the key.
func (c *Context) isICMPError() bool {
	k := c.read(match.EthType | match.Proto)
	switch {
	case k.EthType == packet.EthTypeIPv4 && k.Proto == packet.ProtoICMP:
		switch uint8(c.read(match.SrcPort).SrcPort >> 8) {
		case packet.ICMPUnreachable, packet.ICMPTimeExceeded, packet.ICMPParamProblem:
			return k.Frag == match.FragNone
		}
	case k.EthType == packet.EthTypeIPv6 && k.Proto == packet.ProtoICMPv6:
		return c.read(match.SrcPort).SrcPort>>8 < 128 && k.Frag == match.FragNone // RFC 4443 section 2.1
	}
	return false
}

// quotedTuple is the tuple of the packet that an ICMP error quotes, as devices on the way have translated it.
func (c *Context) quotedTuple() (t match.Tuple, ok bool) {
	c.UserSpace = true // the quote is not in the key
	if c.Quoted != (match.Tuple{}) {
		return c.Quoted, true
	}
	q, ok := c.Packet.Quoted()
	if !ok || q.L4 == 0 {
		return t, false
	}
	k := &q.Key
	t = match.Tuple{Src: k.Src, Dst: k.Dst, SrcPort: k.SrcPort, DstPort: k.DstPort, Proto: k.Proto}
	return t, withPorts(&t)
}

// withPorts turns an ICMP type and identifier into the ports of a Tuple; false for what has neither ports
// nor identifier.
func withPorts(t *match.Tuple) bool {
	switch t.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		return true
	case packet.ProtoICMP, packet.ProtoICMPv6:
	default:
		return false
	}
	switch typ := uint8(t.SrcPort >> 8); {
	case t.Proto == packet.ProtoICMP && typ == packet.ICMPEchoRequest, t.Proto == packet.ProtoICMPv6 && typ == packet.ICMPv6EchoRequest:
		t.SrcPort, t.DstPort = t.DstPort, 0
	case t.Proto == packet.ProtoICMP && typ == packet.ICMPEchoReply, t.Proto == packet.ProtoICMPv6 && typ == packet.ICMPv6EchoReply:
		t.SrcPort = 0
	default:
		return false
	}
	return true
}
