package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Health checks leave a router as its own packets do: with its address, past its filters and translations. Nothing is
// remembered of them, since their answers may enter at any host: the ports tell.

// answersCheck reports whether the packet, which came in by a router's port, is a member's answer to a check, and sends it to who
// checks.
func (c *Context) answersCheck(r *view.Router, in *view.Port, b *branch) bool {
	if r.Health == uuid.Nil || in.Health {
		return false
	}
	src, dst := c.readIPs(b)
	if _, backend := r.Backends[src]; !backend || !hasAddr(in, dst) {
		return false
	}
	t, quoted, why := c.tuple(b)
	if why != drop.None || t.DstPort < health.PortLow {
		return false
	}
	out := c.port(r.Health, b)
	if out == nil {
		return true
	}
	if b.node != nil {
		b.node.Add("sim", "router "+r.Name, "the answer to a health check: to its host")
	}
	to := t
	to.Dst = match.AddrFrom(health.Source6)
	if dst.Is4() {
		to.Dst = match.AddrFrom(health.Source4)
	}
	c.rewrite(b, t, to, quoted)
	b.ethSrc, b.ethDst = out.MAC, match.MAC(health.MAC)
	b.written |= match.EthSrc | match.EthDst
	c.egress(out, *b)
	return true
}

// check gives a health check the router's address on the member's link. False ends the branch.
func (c *Context) check(out *view.Port, b *branch) bool {
	_, dst := c.readIPs(b)
	own, ok := ownAddr(out, dst)
	if !ok {
		c.drop(b, ResultErrorDrop, drop.NoRoute)
		return false
	}
	c.staticNAT(b, true, own)
	return true
}

func hasAddr(p *view.Port, a match.Addr) bool {
	for _, x := range p.Addrs {
		if match.AddrFrom(x.Addr()) == a {
			return true
		}
	}
	return false
}
