package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// port finds a port; nil ends the branch.
func (c *Context) port(id uuid.UUID, b *branch) *view.Port {
	c.depend(tag.Tag{Kind: tag.Port, ID: id})
	p := c.topoPort(id)
	if p == nil {
		c.drop(b, ResultErrorDrop, drop.Unplugged)
	}
	return p
}

// ingress takes the packet from the wire or the peer into its device: past port security, DHCP, security groups and the
// port's filter.
func (c *Context) ingress(p *view.Port, b branch) {
	b.in, b.at, b.nat = p, b.header, 0
	if b.node != nil {
		b.node.Add("sim", "port "+p.Name, "ingress")
	}
	if !p.AdminUp {
		if p.Router != uuid.Nil {
			c.icmpError(p, &b, prohibited, 0)
		}
		c.drop(&b, ResultDrop, drop.AdminDown)
		return
	}
	at := place{"inbound filter", "port", p.Name, p.ID, p.Rules, nil}
	c.copies(p.Mirrors, view.InBeforeFilters, &at, &b)
	if why := c.spoofed(p, &b); why != drop.None {
		c.drop(&b, ResultDrop, why)
		return
	}
	if c.served(p, &b) || !c.guard(p, true, &b) {
		return
	}
	if !c.filter(p.Inbound, at, &b) {
		return
	}
	c.restore(p.Rules, p.ID, bothEnds, &b)
	c.copies(p.Mirrors, view.InAfterFilters, &at, &b)
	c.mark(p, &b)
	if p.Bridge != uuid.Nil {
		if br := c.topoBridge(p.Bridge); br != nil {
			c.bridge(br, p, b)
			return
		}
	} else if r := c.topoRouter(p.Router); r != nil {
		c.router(r, p, b)
		return
	}
	c.depend(tag.Tag{Kind: tag.Device, ID: p.Bridge})
	c.depend(tag.Tag{Kind: tag.Device, ID: p.Router})
	c.drop(&b, ResultErrorDrop, drop.Unplugged)
}

// mark gives an IP packet the DSCP of the port where it enters.
func (c *Context) mark(p *view.Port, b *branch) {
	if p.DSCP == nil || !p.Exterior() || !c.setDSCP(*p.DSCP, b) {
		return
	}
	if b.node != nil {
		b.node.Add("sim", "port "+p.Name, "DSCP becomes %d", *p.DSCP)
	}
}

// isUp reports whether a port can take packets.
func (c *Context) isUp(id uuid.UUID) bool {
	c.depend(tag.Tag{Kind: tag.Port, ID: id})
	p := c.topoPort(id)
	return p != nil && p.AdminUp && (p.Exterior() || p.Peer != uuid.Nil)
}

// redirect sends the branch to another port, as a rule says.
func (c *Context) redirect(to *view.Redirect, b *branch) {
	if !c.turn(b) {
		return
	}
	p := c.port(to.Port, b)
	switch {
	case p == nil:
	case !to.Egress:
		c.ingress(p, *b)
	case !p.AdminUp:
		c.drop(b, ResultDrop, drop.AdminDown)
	default:
		c.emit(p, *b)
	}
}

// egress takes the packet out of a bridge or a router, through the port's filter and its security groups.
func (c *Context) egress(p *view.Port, b branch) {
	if !p.AdminUp {
		c.drop(&b, ResultDrop, drop.AdminDown)
		return
	}
	at := place{"outbound filter", "port", p.Name, p.ID, p.Rules, p}
	c.copies(p.Mirrors, view.OutBeforeFilters, &at, &b)
	if c.filter(p.Outbound, at, &b) {
		c.restore(p.Rules, p.ID, bothEnds, &b)
		if c.guard(p, false, &b) {
			c.emit(p, b)
		}
	}
}

// emit puts the packet on the wire (exterior port) or hands it to the peer (interior).
func (c *Context) emit(p *view.Port, b branch) {
	if len(p.Mirrors) > 0 {
		c.copies(p.Mirrors, view.OutAfterFilters, &place{"outbound filter", "port", p.Name, p.ID, p.Rules, p}, &b)
	}
	switch {
	case p.Exterior():
		if b.node != nil {
			b.node.Add("sim", "port "+p.Name, "egress, exterior: Forward(%s)", p.Name)
		}
		c.scratch.outs = append(c.scratch.outs, output{b.header, p.ID, b.proposal})
	case p.Peer != uuid.Nil:
		if b.node != nil {
			b.node.Add("sim", "port "+p.Name, "egress, interior: to its peer")
		}
		if peer := c.port(p.Peer, &b); peer != nil {
			c.ingress(peer, b)
		}
	default:
		if b.node != nil {
			b.node.Add("sim", "port "+p.Name, "egress, unplugged")
		}
		c.drop(&b, ResultErrorDrop, drop.Unplugged)
	}
}
