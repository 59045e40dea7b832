package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// What an agent does not hold of the network it loads when a simulation asks for it: the simulation ends with ResultNotYet, and starts
// again when what it needs is there. Each of these returns nil for what does not exist, and for what is not known; in the latter
// case nothing else of the outcome counts.

func (c *Context) topoPort(id uuid.UUID) *view.Port {
	p := c.Topo.Port(id)
	if p == nil {
		c.need(view.ThingPort, id)
	}
	return p
}

func (c *Context) topoBridge(id uuid.UUID) *view.Bridge {
	b := c.Topo.Bridge(id)
	if b == nil {
		c.need(view.ThingBridge, id)
	}
	return b
}

func (c *Context) topoRouter(id uuid.UUID) *view.Router {
	r := c.Topo.Router(id)
	if r == nil {
		c.need(view.ThingRouter, id)
	}
	return r
}

func (c *Context) topoChain(id uuid.UUID) *view.Chain {
	ch := c.Topo.Chain(id)
	if ch == nil {
		c.need(view.ThingChain, id)
	}
	return ch
}

func (c *Context) topoGroup(id uuid.UUID) *view.AddressGroup {
	g := c.Topo.AddressGroup(id)
	if g == nil {
		c.need(view.ThingGroup, id)
	}
	return g
}

func (c *Context) topoSecurity(id uuid.UUID) *view.SecurityGroup {
	g := c.Topo.SecurityGroup(id)
	if g == nil {
		c.need(view.ThingSecurity, id)
	}
	return g
}

func (c *Context) topoBalancer(id uuid.UUID) *view.LoadBalancer {
	l := c.Topo.LoadBalancer(id)
	if l == nil {
		c.need(view.ThingBalancer, id)
	}
	return l
}

// need ends the simulation if what is not there is not known either.
func (c *Context) need(k view.ThingKind, id uuid.UUID) {
	t := view.Thing{Kind: k, ID: id}
	if id == uuid.Nil || c.Result == ResultNotYet || !c.Topo.Unknown(t) {
		return // or it goes on only to find its end
	}
	c.Need = append(c.Need, t)
	if c.Trace != nil {
		c.Trace.Add("sim", "not known here", "%s %s has to be loaded", k, id)
	}
	c.wait(t.Tag())
}

// needAll asks for all of a flood's ports at once: when one is not known, others are not likely to be.
func (c *Context) needAll(ports []uuid.UUID) {
	for _, id := range ports {
		if t := (view.Thing{Kind: view.ThingPort, ID: id}); len(c.Need) < MaxNeeds && c.Topo.Port(id) == nil && c.Topo.Unknown(t) {
			c.Need = append(c.Need, t)
		}
	}
}
