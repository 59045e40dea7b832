package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Ports that a masquerading address uses: neither the well-known ones nor those of health checks.
const (
	masqueradeLow  = 1024
	masqueradeHigh = health.PortLow - 1
)

// outside is what a router's translation on the way in has to do with that on the way out.
type outside struct {
	port *view.Port // whose floating IP or masqueraded connection the packet was for; nil: none

	balanced bool       // it was for a load balancer, and is now for a member
	client   match.Addr // then: who sent it
}

// natIn translates the destination before the route is looked up, from whichever port the packet
// comes: floating IPs, and answers to what was masqueraded.
func (c *Context) natIn(r *view.Router, b *branch) (o outside) {
	if c.restore(r.Rules, r.ID, translatedDst, b); b.nat&translatedDst != 0 {
		return c.forwarded(r, b)
	}
	for _, id := range r.NAT {
		c.depend(tag.Tag{Kind: tag.Port, ID: id})
		p := c.topoPort(id)
		if p == nil {
			continue
		}
		_, dst := c.readIPs(b)
		c.depend(tag.Tag{Kind: tag.Floating, ID: id, Addr: dst})
		if fixed, ok := p.Floating[dst]; ok {
			c.staticNAT(b, false, fixed)
			b.translate(translatedDst, r.ID)
			return outside{port: p}
		}
		if own, ok := masquerades(p); ok && own == dst && c.reverseNAT(tag.Translation, r.ID, b) == natApplied {
			return outside{port: p}
		}
	}
	return outside{}
}

// forwarded finds the masquerading port to whose address a packet was sent that a rule has given another destination.
func (c *Context) forwarded(r *view.Router, b *branch) (o outside) {
	for _, id := range r.NAT {
		c.depend(tag.Tag{Kind: tag.Port, ID: id})
		if p := c.topoPort(id); p != nil {
			if own, ok := masquerades(p); ok && own == b.at.dst {
				return outside{port: p}
			}
		}
	}
	return outside{}
}

// translateOut gives what leaves by out the source that it is to have there. False ends the branch.
func (c *Context) translateOut(r *view.Router, in, out *view.Port, o outside, b *branch) bool {
	if in.Health {
		return c.check(out, b)
	}
	return c.natOut(r, in, out, o, b) && c.hairpin(r, in, out, o, b)
}

// natOut translates the source of what leaves by out, after the route is known. What was for an address outside, and is
// turned round to the inside, is translated as if it had been there: else the answer would not come this
// way. False ends the branch.
func (c *Context) natOut(r *view.Router, in, out *view.Port, o outside, b *branch) bool {
	if len(r.NAT) == 0 || b.sourceBy(r.ID) {
		return true
	}
	p := out
	if o.port != nil && in.ID != o.port.ID {
		p = o.port
	}
	if !p.Masquerade && len(p.Fixed) == 0 {
		return true // to be so is among the router's own properties
	}
	src, _ := c.readIPs(b)
	c.depend(tag.Tag{Kind: tag.Floating, ID: p.ID, Addr: src})
	if floating, ok := p.Fixed[src]; ok {
		c.staticNAT(b, true, floating)
		return true
	}
	own, ok := masquerades(p)
	if !ok || b.nat&translatedBack != 0 || in.ID == p.ID || !src.Is4() || onLink(p, src) {
		return true
	}
	return c.sourceNAT(r.ID, b, own, masqueradeLow, masqueradeHigh) != natEnded
}

// masquerades is the address behind which a port hides what leaves by it: its first of IPv4.
func masquerades(p *view.Port) (own match.Addr, ok bool) {
	if !p.Masquerade {
		return own, false
	}
	for _, a := range p.Addrs {
		if a.Addr().Is4() {
			return match.AddrFrom(a.Addr()), true
		}
	}
	return own, false
}
