package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// MaxCopies bounds the copies that mirrors make of one packet: its flow has to hold them all.
const MaxCopies = 8

// copies sends a copy of the branch, as it is now, to the port of each mirror that is at this point and wants it. A copy passes
// no filter and no mirror, and has no connections; nothing of the original depends on it.
func (c *Context) copies(ms []view.Mirror, point view.MirrorPoint, at *place, b *branch) {
	for i := range ms {
		m := &ms[i]
		if m.At&point == 0 || at.out != nil && at.out.ID == m.To || !c.fitsMirror(m, at, b) {
			continue
		}
		c.depend(tag.Tag{Kind: tag.Port, ID: m.To})
		to := c.topoPort(m.To)
		var lost string
		switch {
		case to == nil || !to.Exterior():
			lost = "its port has no interface"
		case !to.AdminUp:
			lost = "its port is down"
		case c.scratch.copies == MaxCopies:
			lost = "too many copies"
		}
		if lost != "" {
			if b.node != nil {
				b.node.Add("sim", at.device+" "+at.name, "mirror %s (%s): no copy: %s", m.Name, m.Match.String(), lost)
			}
			continue
		}
		if b.node != nil {
			b.node.Add("sim", at.device+" "+at.name, "mirror %s (%s): copy to port %s", m.Name, m.Match.String(), to.Name)
		}
		c.scratch.copies++
		c.scratch.outs = append(c.scratch.outs, output{b.header, to.ID, 0})
	}
}

// fitsMirror is fits for a mirror: what it asks holds nothing up. A later fragment whose first one has not come is not copied where
// ports are asked for.
func (c *Context) fitsMirror(m *view.Mirror, at *place, b *branch) bool {
	f := &c.scratch.first
	f.aside, f.missed = true, false
	fits := c.fits(&m.Match, at, b)
	f.aside = false
	return fits && !f.missed
}
