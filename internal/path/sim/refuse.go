package sim

import (
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// refuse tells the sender of a rejected packet, out of the port where it came to the device at hand. A router speaks for
// itself; a bridge, which has no address, as if the destination did.
//
// The drop flow that follows is the packet's own, however little was read to decide: each connection that is tried is
// told so.
func (c *Context) refuse(b *branch) {
	before := len(c.Generated)
	switch {
	case b.in == nil: // made by the device
	case b.in.Router != uuid.Nil:
		c.icmpError(b.in, b, prohibited, 0)
	default:
		c.refuseAtBridge(b)
	}
	if len(c.Generated) > before {
		c.read(match.EthType | match.Proto | match.Frag)
		c.readIPs(b)
		c.readPorts(b)
	}
}

// refuseAtBridge answers TCP with a reset and everything else with "administratively prohibited". What is true of all errors
// holds for a reset too: nothing is said about a packet for many, or to nobody (RFC 1812 section 4.3.2.7), nor about
// a copy of a flood, which another receiver may take.
func (c *Context) refuseAtBridge(b *branch) {
	back := *b
	back.header = b.at
	v := c.arrived(&back)
	if b.flooded || !v.MayCauseError() {
		return
	}
	frame, ok := c.frame()
	if !ok {
		return
	}
	what := prohibited.what
	if v.Key.Proto == packet.ProtoTCP && v.Key.Frag == match.FragNone {
		frame, what = buildReset(frame, &v), "TCP reset"
	} else {
		m := packet.ICMP{Type: prohibited.type4, Code: prohibited.code4}
		if v.Is6() {
			m = packet.ICMP{Type: prohibited.type6, Code: prohibited.code6}
		}
		frame = packet.BuildICMPError(frame, &v, v.Key.Dst, m)
	}
	if len(frame) == 0 {
		return
	}
	c.agreeOwn(b.proposal)
	c.generate(b.in, frame, b, "port", b.in.Name, what)
}

// buildReset appends the answer of a closed port to a segment; to a reset there is none (RFC 9293 section 3.10.7.1).
func buildReset(dst []byte, v *packet.View) []byte {
	if v.L4 == 0 || v.L4+packet.TCPLen > v.L3+v.L3Len || v.TCPFlags()&packet.FlagRST != 0 {
		return dst
	}
	h, flags := v.Transport(), v.TCPFlags()
	k := &v.Key
	t := packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort, Flags: packet.FlagRST}
	if flags&packet.FlagACK != 0 {
		t.Seq = binary.BigEndian.Uint32(h[8:])
	} else {
		length := uint32(len(v.Payload()))
		if flags&packet.FlagSYN != 0 {
			length++
		}
		if flags&packet.FlagFIN != 0 {
			length++
		}
		t.Flags |= packet.FlagACK
		t.Ack = binary.BigEndian.Uint32(h[4:]) + length
	}
	return packet.BuildTCP(dst, v.Ether().Reverse(), packet.IP{Src: k.Dst, Dst: k.Src}, t, nil)
}
