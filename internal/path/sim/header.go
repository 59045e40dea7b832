package sim

import (
	"cmp"
	"math"
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// read is the key as received; fields go into the mask. The fields that header
// holds are read through it: what a device wrote depends on no field of the packet, beyond
// those that were read to decide it.
func (c *Context) read(fields match.Mask) *match.Key {
	c.Mask |= fields
	return &c.Packet.Key
}

// readSrc and readDst are the MACs, readIPs the network addresses, readPorts the ports or ICMP
// type and identifier: as the branch has them now.
func (c *Context) readSrc(b *branch) match.MAC {
	c.Mask |= match.EthSrc &^ b.written
	return b.ethSrc
}

func (c *Context) readDst(b *branch) match.MAC {
	c.Mask |= match.EthDst &^ b.written
	return b.ethDst
}

func (c *Context) readIPs(b *branch) (src, dst match.Addr) {
	c.Mask |= (match.Src | match.Dst) &^ b.written
	return b.src, b.dst
}

func (c *Context) readPorts(b *branch) (src, dst uint16) {
	c.Mask |= (match.SrcPort | match.DstPort) &^ b.written
	return b.srcPort, b.dstPort
}

// askPorts is readPorts for what asks State about a connection and decides nothing by the ports themselves.
func (c *Context) askPorts(b *branch) (src, dst uint16) {
	c.scratch.loose |= (match.SrcPort | match.DstPort) &^ b.written
	return b.srcPort, b.dstPort
}

// readWithin is a look at a port, in the field f, that tells no more than whether it is in a range.
func (c *Context) readWithin(f match.Mask, port uint16, r PortRange) bool {
	within := r.Has(port)
	if f != match.DstPort {
		c.Mask |= f
		return within
	}
	c.scratch.loose |= f
	d := &c.DstPorts
	switch {
	case within:
		d.From, d.To = max(d.From, r.From), min(d.To, r.To)
	case port < r.From:
		d.To = min(d.To, r.From-1)
	default:
		d.From = max(d.From, r.To+1)
	}
	return within
}

// readVLAN is the tag as match.Key has it; 0: there is none.
func (c *Context) readVLAN(b *branch) uint16 {
	c.Mask |= match.VLAN &^ b.written
	return b.vlan
}

// readTOS is the ToS or traffic class.
func (c *Context) readTOS(b *branch) uint8 {
	c.Mask |= match.TOS &^ b.written
	return b.tos
}

func (b *branch) setTOS(tos uint8) { b.tos, b.written = tos, b.written|match.TOS }

func (b *branch) setVLAN(tci uint16) { b.vlan, b.written = tci, b.written|match.VLAN }

func (b *branch) setSrc(a match.Addr) { b.src, b.written = a, b.written|match.Src }
func (b *branch) setDst(a match.Addr) { b.dst, b.written = a, b.written|match.Dst }

func (b *branch) setSrcPort(p uint16) { b.srcPort, b.written = p, b.written|match.SrcPort }
func (b *branch) setDstPort(p uint16) { b.dstPort, b.written = p, b.written|match.DstPort }

// assemble turns outputs into actions. A rewrite is seen by all later outputs, so
// each output is preceded by what makes the header its own, which may be the
// original value again. A TTL cannot be raised: outputs go by decrements.
func (c *Context) assemble() {
	s := &c.scratch
	tag := c.Packet.Key.VLAN
	slices.SortStableFunc(s.outs, func(a, b output) int {
		// Tags come and go as seldom as possible: first those that want it as it is.
		return cmp.Or(cmp.Compare(a.decs, b.decs), cmp.Compare(a.vlan^tag, b.vlan^tag))
	})
	if s.mtu > 0 {
		c.act(action.Action{Op: action.CheckLen, Value: uint16(min(s.mtu, math.MaxUint16))})
	}
	now := header{vlan: c.Packet.Key.VLAN} // written and decs: what the actions have done so far
	for i := range s.outs {
		o := &s.outs[i].header
		if c.sets(match.EthSrc, &now, o, now.ethSrc == o.ethSrc) {
			now.ethSrc = o.ethSrc
			c.act(action.Action{Op: action.SetEthSrc, MAC: o.ethSrc})
		}
		if c.sets(match.EthDst, &now, o, now.ethDst == o.ethDst) {
			now.ethDst = o.ethDst
			c.act(action.Action{Op: action.SetEthDst, MAC: o.ethDst})
		}
		if c.sets(match.Src, &now, o, now.src == o.src) {
			now.src = o.src
			c.act(action.Action{Op: action.SetSrc, Addr: o.src})
		}
		if c.sets(match.Dst, &now, o, now.dst == o.dst) {
			now.dst = o.dst
			c.act(action.Action{Op: action.SetDst, Addr: o.dst})
		}
		later := c.Packet.Key.Frag == match.FragLater // and has no ports; to be so is in the mask of whoever has written some
		if !later && c.sets(match.SrcPort, &now, o, now.srcPort == o.srcPort) {
			now.srcPort = o.srcPort
			c.act(action.Action{Op: action.SetSrcPort, Value: o.srcPort})
		}
		if !later && c.sets(match.DstPort, &now, o, now.dstPort == o.dstPort) {
			now.dstPort = o.dstPort
			c.act(action.Action{Op: action.SetDstPort, Value: o.dstPort})
		}
		if c.sets(match.TOS, &now, o, now.tos == o.tos) {
			now.tos = o.tos
			c.act(action.Action{Op: action.SetTOS, Value: uint16(o.tos)})
		}
		if now.vlan != o.vlan { // whoever changed it has read it
			c.retag(now.vlan, o.vlan)
			now.vlan = o.vlan
		}
		for ; now.decs < o.decs; now.decs++ {
			c.act(action.Action{Op: action.DecTTL})
		}
		c.act(action.Action{Op: action.Forward, VPort: s.outs[i].port})
	}
}

// keepsTo notes an MTU that the packet has kept to; 0: there is none. No rewrite changes a packet's length, so it does not matter which
// were done before.
func (c *Context) keepsTo(mtu int) {
	if s := &c.scratch; mtu > 0 && (s.mtu == 0 || mtu < s.mtu) {
		s.mtu = mtu
	}
}

// retag replaces one tag, or none, by another.
func (c *Context) retag(from, to uint16) {
	if from != 0 {
		c.act(action.Action{Op: action.PopVLAN})
	}
	if to != 0 {
		c.act(action.Action{Op: action.PushVLAN, Value: to &^ match.VLANPresent})
	}
}

func (c *Context) act(a action.Action) { c.Actions = append(c.Actions, a) }

// sets reports whether field f, whose value is as now says when an earlier output had it written, must be set for
// an output that wants it as in o.
func (c *Context) sets(f match.Mask, now, o *header, same bool) bool {
	if (now.written|o.written)&f == 0 {
		return false // as received, and wanted so
	}
	if o.written&f == 0 {
		c.Mask |= f // the original value becomes part of the actions
	}
	if now.written&f != 0 && same {
		return false
	}
	now.written |= f
	return true
}
