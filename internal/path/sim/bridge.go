package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

const vidMask = 0x0fff

// bridge switches a frame by its destination MAC (IEEE 802.1Q, 8.8), after learning
// its source and answering ARP and neighbour solicitations it knows the answer to.
// A source is learnt whatever the bridge's filters do: where it is does not depend on what it may say.
func (c *Context) bridge(br *view.Bridge, in *view.Port, b branch) {
	if !c.enter(br.ID, &b) {
		return
	}
	if !br.AdminUp {
		c.drop(&b, ResultDrop, drop.AdminDown)
		return
	}
	src := c.readSrc(&b)
	if src.IsMulticast() {
		c.drop(&b, ResultDrop, drop.MulticastSrc)
		return
	}
	vlan, why := c.tag(in, &b)
	if why != drop.None {
		c.drop(&b, ResultDrop, why)
		return
	}
	if in.Exterior() || c.leadsToBridge(in) {
		c.learnMAC(br, in, src, vlan, &b)
	}
	at := place{"pre-forwarding filter", "bridge", br.Name, br.ID, br.Rules, nil}
	c.copies(br.Mirrors, view.InBeforeFilters, &at, &b)
	if !c.filter(br.Pre, at, &b) {
		return
	}
	c.restore(br.Rules, br.ID, bothEnds, &b)
	c.copies(br.Mirrors, view.InAfterFilters, &at, &b)
	// ARP and ND belong to the link, which a tag makes a different one: only bridges that know VLANs know it.
	if (b.vlan == 0 || br.VLANAware) && c.answer(br, in, &b) {
		return
	}
	dst := c.readDst(&b)
	if dst.IsMulticast() {
		c.flood(br, in, b)
		return
	}
	out := c.locate(br, dst, vlan)
	switch {
	case out == nil && dst != src:
		c.flood(br, in, b)
	case out == nil || out.ID == in.ID:
		c.drop(&b, ResultDrop, drop.Hairpin)
	default:
		if b.node != nil {
			b.node.Add("sim", "bridge "+br.Name, "MAC table finds %s at port %s", dst, out.Name)
		}
		c.leave(br, out, b)
	}
}

// tag gives what comes in by an access port the port's VLAN, and finds that of the frame. A tagged frame has no business
// at an access port; one that is only tagged with a priority has no VLAN yet (IEEE 802.1Q, 6.9.1).
func (c *Context) tag(in *view.Port, b *branch) (vlan uint16, why drop.Reason) {
	tci := c.readVLAN(b)
	switch {
	case in.VLAN == 0:
		return tci & vidMask, drop.None
	case tci&vidMask != 0:
		return 0, drop.NotInVLAN
	case tci != 0 && c.isDoubleTagged():
		return 0, drop.DoubleTagged
	}
	b.setVLAN(match.VLANPresent | tci&^vidMask | in.VLAN)
	return in.VLAN, drop.None
}

// untag takes the tag off what leaves by an access port.
func (c *Context) untag(out *view.Port, b *branch) drop.Reason {
	switch {
	case out.VLAN == 0:
		return drop.None
	case b.vlan&vidMask != out.VLAN:
		return drop.NotInVLAN
	case c.isDoubleTagged():
		return drop.DoubleTagged
	}
	b.setVLAN(0)
	return drop.None
}

// leadsToBridge reports whether frames of another bridge come in by the port: where they are from is to be learnt.
func (c *Context) leadsToBridge(in *view.Port) bool {
	peer := c.topoPort(in.Peer) // by which the frame came: what it depends on already
	return peer != nil && peer.Bridge != uuid.Nil
}

// leave takes a frame out of the bridge, through its filter.
func (c *Context) leave(br *view.Bridge, out *view.Port, b branch) {
	at := place{"post-forwarding filter", "bridge", br.Name, br.ID, br.Rules, out}
	c.copies(br.Mirrors, view.OutBeforeFilters, &at, &b)
	if c.filter(br.Post, at, &b) {
		if why := c.untag(out, &b); why != drop.None {
			c.drop(&b, ResultDrop, why)
			return
		}
		c.copies(br.Mirrors, view.OutAfterFilters, &at, &b)
		c.egress(out, b)
	}
}

// learnMAC registers the source at the port it came from. A seeded address stays where
// the topology has put it. The entry is among the tags, so that a move
// invalidates the flow, and so that the flow can keep the entry alive.
func (c *Context) learnMAC(br *view.Bridge, in *view.Port, src match.MAC, vlan uint16, b *branch) {
	c.dependMAC(br, src, vlan)
	if _, seeded := br.MACs[view.LinkMAC{MAC: src, VLAN: br.SeedVLAN(vlan)}]; seeded {
		return
	}
	if at, ok := c.State.MAC(br.ID, vlan, src); ok && at == in.ID {
		return
	}
	if b.node != nil {
		b.node.Add("sim", "bridge "+br.Name, "learn %s at port %s", src, in.Name)
	}
	c.Learn = append(c.Learn, Learn{Kind: LearnMAC, Device: br.ID, VLAN: vlan, MAC: src, Port: in.ID})
}

// dependMAC names the learnt entry, and the seeded one, which on a bridge that knows no VLANs holds whatever the tag.
func (c *Context) dependMAC(br *view.Bridge, mac match.MAC, vlan uint16) {
	c.depend(tag.Tag{Kind: tag.MACEntry, ID: br.ID, MAC: mac, VLAN: vlan})
	if vlan != br.SeedVLAN(vlan) {
		c.depend(tag.Tag{Kind: tag.MACEntry, ID: br.ID, MAC: mac})
	}
}

// locate finds the port behind which a MAC is, or nil.
func (c *Context) locate(br *view.Bridge, dst match.MAC, vlan uint16) *view.Port {
	c.dependMAC(br, dst, vlan)
	id, ok := br.MACs[view.LinkMAC{MAC: dst, VLAN: br.SeedVLAN(vlan)}]
	if !ok {
		id, ok = c.State.MAC(br.ID, vlan, dst)
	}
	if !ok {
		return nil
	}
	c.depend(tag.Tag{Kind: tag.Port, ID: id})
	if p := c.topoPort(id); p != nil && p.Bridge == br.ID {
		return p
	}
	return nil // the entry has outlived its port
}

// flood sends a copy out of every port but the one the frame came from.
func (c *Context) flood(br *view.Bridge, in *view.Port, b branch) {
	c.depend(tag.Tag{Kind: tag.Flood, ID: br.ID})
	if b.node != nil {
		b.node = b.node.Add("sim", "bridge "+br.Name, "flood")
	}
	sent := false
	b.flooded = true
	for _, id := range br.Ports {
		if id == in.ID {
			continue
		}
		p := c.port(id, &b)
		if c.scratch.stopped {
			c.needAll(br.Ports)
			return
		}
		if p == nil || p.VLAN != 0 && p.VLAN != b.vlan&vidMask {
			continue
		}
		sent = true
		c.leave(br, p, b)
		if c.scratch.stopped {
			return
		}
	}
	if !sent {
		c.drop(&b, ResultDrop, drop.NoReceiver)
	}
}

// linkMAC finds addr among what a bridge was seeded with or has learnt.
func (c *Context) linkMAC(br *view.Bridge, addr match.Addr, vlan uint16) (mac match.MAC, ok bool) {
	c.depend(tag.Tag{Kind: tag.Neighbour, ID: br.ID, Addr: addr, VLAN: vlan})
	if mac, ok = br.Neighbours[view.LinkAddr{Addr: addr, VLAN: vlan}]; ok {
		return mac, ok
	}
	return c.State.BridgeNeighbour(br.ID, vlan, addr)
}

// isRouter reports whether a MAC on the bridge is that of a router's port.
func (c *Context) isRouter(br *view.Bridge, mac match.MAC, vlan uint16) bool {
	p := c.topoPort(br.MACs[view.LinkMAC{MAC: mac, VLAN: vlan}])
	if p == nil || p.Peer == uuid.Nil {
		return false
	}
	peer := c.topoPort(p.Peer)
	return peer != nil && peer.Router != uuid.Nil
}
