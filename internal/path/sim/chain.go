package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// MaxRules bounds the rules that one pass through a filter tries, those of the chains
// it jumps to included: chains that jump twice each double the work at every level.
const MaxRules = 16384

// place is where a filter stands: what of the packet's way its rules can ask for, and what traces say.
type place struct {
	what   string // such as "inbound filter"
	device string // kind of the device or port
	name   string
	id     uuid.UUID // of that device or port
	rules  *view.Translated
	out    *view.Port // by which the packet leaves; nil: not known yet
}

// filter sends the branch through a chain (Nil: none). False: it has ended.
func (c *Context) filter(chain uuid.UUID, at place, b *branch) bool {
	if chain == uuid.Nil {
		return true
	}
	pass := pass{place: &at}
	v := c.chain(chain, &pass, b)
	if pass.ended {
		return false
	}
	switch v {
	case view.VerdictDrop:
		c.drop(b, ResultDrop, drop.FilterDrop)
		return false
	case view.VerdictReject:
		c.refuse(b)
		c.drop(b, ResultErrorDrop, drop.FilterReject)
		return false
	case view.VerdictRedirect:
		c.redirect(&pass.by.Redirect, b)
		return false
	}
	if pass.rules > MaxRules {
		c.drop(b, ResultErrorDrop, drop.FilterTooLong)
		return false
	}
	if b.node != nil && pass.by == nil {
		b.node.Add("sim", at.device+" "+at.name, "%s: no rule decides: accept", at.what)
	}
	return true
}

// pass is one way of a packet through the chains of a filter.
type pass struct {
	*place
	rules int        // tried so far
	by    *view.Rule // that decided; nil: none has
	ended bool       // the branch was dropped, or the simulation waits, in the middle of a chain
}

// chain tries rules until one decides. At the end of the chain the verdict is VerdictReturn.
func (c *Context) chain(id uuid.UUID, p *pass, b *branch) view.Verdict {
	c.depend(tag.Tag{Kind: tag.Chain, ID: id})
	ch := c.topoChain(id)
	if ch == nil { // the store refuses that; a filter that is missing must not stand open
		if b.node != nil {
			b.node.Add("sim", p.device+" "+p.name, "%s: there is no chain %s", p.what, id)
		}
		return view.VerdictDrop
	}
	for i := range ch.Rules {
		r := &ch.Rules[i]
		if p.rules++; p.rules > MaxRules {
			return view.VerdictReturn
		}
		if !c.fits(&r.Match, p.place, b) {
			continue
		}
		if b.node != nil {
			b.node.Add("sim", p.device+" "+p.name, "%s: chain %s, rule %s (%s): %s", p.what, ch.Name, r.Label(), r.Match.String(), r.Action())
		}
		came := b.header
		switch c.alter(r, p.place, b) {
		case natPassed:
			if b.node != nil {
				b.node.Add("sim", p.device+" "+p.name, "%s: rule %s is not for this packet", p.what, r.Label())
			}
			continue
		case natEnded:
			p.ended = true
			return r.Verdict
		}
		c.Rules = append(c.Rules, r)
		if r.Log {
			c.log(r, ch, p.place, &came)
		}
		switch r.Verdict {
		case view.VerdictContinue:
		case view.VerdictJump:
			if v := c.chain(r.Jump, p, b); v != view.VerdictReturn {
				return v
			}
		case view.VerdictReturn:
			return view.VerdictReturn
		default:
			p.by = r
			return r.Verdict
		}
	}
	return view.VerdictReturn
}

func (c *Context) log(r *view.Rule, ch *view.Chain, at *place, h *header) {
	k := &c.Packet.Key
	c.Logged = append(c.Logged, Logged{
		Rule: r, Chain: ch, Place: at.what, Device: at.name, EthSrc: h.ethSrc, EthDst: h.ethDst, EthType: k.EthType, VLAN: h.vlan,
		Proto: k.Proto, Src: h.src, Dst: h.dst, SrcPort: h.srcPort, DstPort: h.dstPort,
	})
}

// trailStep is one device on the way of a branch, in scratch, where branches share their common past.
type trailStep struct {
	device uuid.UUID
	before int32 // the step before, as branch.trail counts
}

// traversed reports whether the branch has entered the device.
func (c *Context) traversed(device uuid.UUID, b *branch) bool {
	for i := b.trail; i != 0; i = c.scratch.trail[i-1].before {
		if c.scratch.trail[i-1].device == device {
			return true
		}
	}
	return false
}

// grouped reports whether the group lists addr.
func (c *Context) grouped(group uuid.UUID, addr match.Addr) bool {
	c.depend(tag.Tag{Kind: tag.Group, ID: group})
	c.depend(tag.Tag{Kind: tag.Group, ID: group, Addr: addr})
	return c.topoGroup(group).Contains(addr.Netip())
}
