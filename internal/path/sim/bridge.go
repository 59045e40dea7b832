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
	tci := c.readVLAN(&b)
	vlan := tci & vidMask
	if in.Exterior() {
		c.learnMAC(br, in, src, vlan, &b)
	}
	if !c.filter(br.Pre, place{"pre-forwarding filter", "bridge", br.Name, br.ID, br.Rules, nil}, &b) {
		return
	}
	c.restore(br.Rules, br.ID, bothEnds, &b)
	// ARP and ND belong to the link, which a tag makes a different one.
	if tci == 0 && c.answer(br, in, &b) {
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

// leave takes a frame out of the bridge, through its filter.
func (c *Context) leave(br *view.Bridge, out *view.Port, b branch) {
	if c.filter(br.Post, place{"post-forwarding filter", "bridge", br.Name, br.ID, br.Rules, out}, &b) {
		c.egress(out, b)
	}
}

// learnMAC registers the source at the port it came from. A seeded address stays where
// the topology has put it. The entry is among the tags, so that a move
// invalidates the flow, and so that the flow can keep the entry alive.
func (c *Context) learnMAC(br *view.Bridge, in *view.Port, src match.MAC, vlan uint16, b *branch) {
	c.dependMAC(br, src, vlan)
	if _, seeded := br.MACs[src]; seeded {
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

// dependMAC names the learnt entry, and the seeded one, which holds in every VLAN and
// changes as that of VLAN 0.
func (c *Context) dependMAC(br *view.Bridge, mac match.MAC, vlan uint16) {
	c.depend(tag.Tag{Kind: tag.MACEntry, ID: br.ID, MAC: mac, VLAN: vlan})
	if vlan != 0 {
		c.depend(tag.Tag{Kind: tag.MACEntry, ID: br.ID, MAC: mac})
	}
}

// locate finds the port behind which a MAC is, or nil.
func (c *Context) locate(br *view.Bridge, dst match.MAC, vlan uint16) *view.Port {
	c.dependMAC(br, dst, vlan)
	id, ok := br.MACs[dst]
	if !ok {
		id, ok = c.State.MAC(br.ID, vlan, dst)
	}
	if !ok {
		return nil
	}
	c.depend(tag.Tag{Kind: tag.Port, ID: id})
	if p := c.Topo.Port(id); p != nil && p.Bridge == br.ID {
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
	for _, id := range br.Ports {
		if id == in.ID {
			continue
		}
		p := c.port(id, &b)
		if p == nil {
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
func (c *Context) linkMAC(br *view.Bridge, addr match.Addr) (mac match.MAC, ok bool) {
	c.depend(tag.Tag{Kind: tag.Neighbour, ID: br.ID, Addr: addr})
	if mac, ok = br.Neighbours[addr]; ok {
		return mac, true
	}
	return c.State.BridgeNeighbour(br.ID, addr)
}

// isRouter reports whether a MAC on the bridge is that of a router's port.
func (c *Context) isRouter(br *view.Bridge, mac match.MAC) bool {
	p := c.Topo.Port(br.MACs[mac])
	if p == nil || p.Peer == uuid.Nil {
		return false
	}
	peer := c.Topo.Port(p.Peer)
	return peer != nil && peer.Router != uuid.Nil
}
