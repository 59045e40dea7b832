package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// first is what the first fragment of the packet's datagram said, for a later one.
type first struct {
	known    bool
	told     bool // in the trace
	tcpFlags uint8

	aside, missed bool // nobody is to wait for it; somebody would have
}

// Datagram names the datagram that a fragment which entered at a port is of. It is what fragments have in common, as received
// (RFC 791 section 3.2, RFC 8200 section 4.5); each port has its own.
func Datagram(port uuid.UUID, v *packet.View) tag.Tag {
	k := &v.Key
	return tag.Tag{Kind: tag.Fragment, ID: port, Addr: k.Src, Peer: k.Dst, Proto: k.Proto, N: v.FragmentID()}
}

// follow gives a later fragment the ports of its first one, if that has come: whoever asks for them asks hasPorts first.
func (c *Context) follow(h *header) {
	if c.Packet.Key.Frag != match.FragLater || !portsOf(c.Packet.Key.Proto) || c.State == nil {
		return
	}
	f := &c.scratch.first
	h.srcPort, h.dstPort, f.tcpFlags, f.known = c.State.FirstFragment(Datagram(c.scratch.ingress, &c.Packet))
}

// hasPorts reports whether the ports of the branch, or the type and identifier of ICMP, are those of its datagram. For a later
// fragment whose first one has not come the simulation ends here, and starts again when that has: they follow its decision.
//
// The identification is not in the key, so that no flow is installed for a fragment that has been asked this, nor for a
// first one whose ports were read (finish): each first one has to be seen.
func (c *Context) hasPorts(b *branch) bool {
	k := c.read(match.Proto | match.Frag)
	if k.Frag == match.FragNone || !portsOf(k.Proto) {
		return true
	}
	c.UserSpace = true
	if k.Frag == match.FragFirst {
		return true
	}
	f := &c.scratch.first
	if f.aside && !f.known {
		f.missed = true
		return false
	}
	if b.node != nil && !f.told && !c.scratch.stopped {
		f.told = true
		if id := c.Packet.FragmentID(); f.known {
			b.node.Add("sim", "fragment", "follows the first one of datagram %d: %d > %d", id, b.srcPort, b.dstPort)
		} else {
			b.node.Add("sim", "fragment", "not yet: the first one of datagram %d has not come", id)
		}
	}
	if !f.known {
		c.wait(Datagram(c.scratch.ingress, &c.Packet))
	}
	return f.known
}

// portsOf reports a protocol whose header has ports, or a type and an identifier.
func portsOf(proto uint8) bool {
	switch proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6:
		return true
	}
	return false
}
