package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// tracked is the direction of the connection that the packet is of; quoted: it is an ICMP error about a packet of the opposite
// one. Protocols without ports have connections between addresses. ok is false for what nobody answers: ICMP but for echo,
// errors that quote too little, packets to many. The caller has asked hasPorts.
func (c *Context) tracked(b *branch) (t match.Tuple, quoted, ok bool) {
	k := c.read(match.EthType | match.Proto | match.Frag)
	src, dst := c.readIPs(b)
	t = match.Tuple{Src: src, Dst: dst, Proto: k.Proto}
	if toMany(&dst) {
		return t, false, false
	}
	if c.isICMPError() {
		t, ok = c.quotedTuple()
		return t.Reverse(), true, ok
	}
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		t.SrcPort, t.DstPort = c.askPorts(b)
		return t, false, true
	case packet.ProtoICMP, packet.ProtoICMPv6:
		t.SrcPort, t.DstPort = c.readPorts(b)
		return t, false, withPorts(&t)
	}
	return t, false, true
}

// toMany reports a multicast address of either family, or the broadcast address of all links.
func toMany(a *match.Addr) bool {
	if a.Is4() {
		return a[12]&0xf0 == 0xe0 || *(*[4]byte)(a[12:]) == [4]byte{255, 255, 255, 255}
	}
	return a[0] == 0xff
}

// begins reports whether the packet may be the first that is seen of a connection: of TCP a SYN, or an ACK, so that connections older
// than what is remembered of them go on, as Linux has it (nf_conntrack_tcp_loose). Everything else, such as FIN or
// RST alone, no flags, or SYN with FIN, belongs to a connection or is invalid.
func (c *Context) begins() bool {
	if c.Packet.Key.Proto != packet.ProtoTCP {
		return true
	}
	const deciding = packet.FlagSYN | packet.FlagACK | packet.FlagFIN | packet.FlagRST
	flags := (c.Packet.TCPFlags() | c.scratch.first.tcpFlags) & deciding
	return flags == packet.FlagSYN || flags == packet.FlagACK
}

// begin proposes a connection of a port or device.
func (c *Context) begin(b *branch, device uuid.UUID, t match.Tuple) {
	c.propose(b, Learn{Kind: LearnConnection, Conn: tag.Connection, Device: device, Port: c.payer(device), Orig: t, Reply: t.Reverse()})
}

// payer is whose bound counts for what is learnt at a port or device: the VM's whose packet it is, so that nobody fills what is
// another's. What comes from outside by a router's port, which stands for everybody there, counts where it is learnt.
func (c *Context) payer(device uuid.UUID) uuid.UUID {
	if o := c.scratch.origin; o != nil && o.Bridge != uuid.Nil {
		return o.ID
	}
	return device
}
