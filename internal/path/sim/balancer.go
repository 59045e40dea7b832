package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// balance sends what is for a listener of a load balancer to a member, before the route is looked up: new connections to
// one that is chosen, the others to theirs. What is for its address but for no listener is the router's own.
func (c *Context) balance(r *view.Router, in *view.Port, b *branch) natResult {
	if len(r.VIPs) == 0 || in.Health {
		return natPassed
	}
	c.hairpinBack(r, in, b)
	_, dst := c.readIPs(b)
	id, ok := r.VIPs[dst]
	if !ok {
		return natPassed
	}
	c.depend(tag.Tag{Kind: tag.Balancer, ID: id})
	l := c.topoBalancer(id)
	if l == nil {
		return natPassed
	}
	t, quoted, why := c.tuple(b)
	switch {
	case why == drop.NatFragment:
		return c.natDrop(b, why) // or waits
	case why != drop.None:
		return natPassed
	}
	x := l.Listener(t.Proto, t.DstPort)
	switch {
	case x == nil:
		return natPassed
	case !l.AdminUp:
		c.icmpError(in, b, prohibited, 0)
		c.drop(b, ResultDrop, drop.AdminDown)
		return natEnded
	}
	other, reply, known := c.connection(tag.Destination, r.ID, &t, quoted)
	switch {
	case known && reply:
		return natPassed
	case known:
		c.depend(tag.OfMember(id, other.Src, other.SrcPort))
		if m := x.Find(other.Src, other.SrcPort); m != nil && !m.Down {
			c.explainMember(b, l, x, m, "that of the connection")
			c.rewrite(b, t, other.Reverse(), quoted)
			b.translate(translatedDst, r.ID)
			return natApplied
		}
		// Its member is gone. Another one does not know the connection, and says so: the client need not wait.
	default:
		other = match.Tuple{}
	}
	if quoted {
		return c.natDrop(b, drop.NatProtocol)
	}
	return c.assign(l, x, in, b, t, other)
}

// assign begins a connection with a member. was is how its answers came until now; zero: it is new.
func (c *Context) assign(l *view.LoadBalancer, x *view.Listener, in *view.Port, b *branch, t, was match.Tuple) natResult {
	c.depend(tag.Tag{Kind: tag.Members, ID: l.ID})
	hash, sticky := view.TupleHash(&t), match.Tuple{}
	if x.Persistent > 0 {
		hash, sticky = view.AddrHash(t.Src, 0), c.affinity(l.ID, &t)
	}
	// The member of the client's other connections comes first, then that of the flow which is being adopted.
	to, _ := c.Hint.addr(false)
	port := c.Hint.dstPort()
	if port == 0 {
		port = t.DstPort
	}
	preferred := [...]struct {
		m   *view.Member
		why string
	}{{x.Find(sticky.Src, sticky.SrcPort), "that of the client"}, {x.Find(to, port), "that of the flow"}}
	for _, p := range preferred {
		if p.m != nil && p.m.Available() && c.join(l, x, p.m, b, &t, &was, &sticky, p.why) {
			return natApplied
		}
	}
	for n := range maxChoices {
		m := x.Choose(hash, n)
		if m == nil && n == 0 {
			c.icmpError(in, b, portUnreachable, 0)
			return c.natDrop(b, drop.NoMember)
		}
		if m == nil {
			break
		}
		if c.join(l, x, m, b, &t, &was, &sticky, "chosen by weight") {
			return natApplied
		}
	}
	return c.natDrop(b, drop.NatConflict)
}

// affinity is how answers come to a client whose connections go to one member; zero: it is not known.
func (c *Context) affinity(lb uuid.UUID, t *match.Tuple) match.Tuple {
	client := clientOf(t)
	other, _, ok := c.connection(tag.Affinity, lb, &client, true)
	if !ok {
		return match.Tuple{}
	}
	return other
}

// clientOf is a connection without the client's port: what persistence goes by.
func clientOf(t *match.Tuple) match.Tuple {
	client := *t
	client.SrcPort = 0
	return client
}

// join proposes that the connection goes to m, and later ones of the client if the pool is persistent and the client's own member, if it has one, is
// not available. False: another connection to m has the same addresses and ports.
func (c *Context) join(l *view.LoadBalancer, x *view.Listener, m *view.Member, b *branch, t, was, sticky *match.Tuple, why string) bool {
	as := *t
	as.Dst, as.DstPort = m.Address, m.Port
	if !c.connect(tag.Destination, l.Router, b, *t, as) {
		return false
	}
	c.depend(tag.OfMember(l.ID, m.Address, m.Port))
	c.explainMember(b, l, x, m, why)
	p := &c.scratch.proposals[b.proposal-1].learn
	p.Port, p.Was = c.payer(l.ID), *was
	home := x.Find(sticky.Src, sticky.SrcPort)
	if x.Persistent > 0 && (home == nil || !home.Available()) {
		client := clientOf(t)
		answer := match.Tuple{Src: m.Address, SrcPort: m.Port, Dst: t.Src, DstPort: t.DstPort, Proto: t.Proto}
		c.propose(b, Learn{Kind: LearnConnection, Conn: tag.Affinity, Device: l.ID, Port: c.payer(l.ID),
			Orig: client, Reply: answer, Was: *sticky, Idle: int64(x.Persistent)})
	}
	return true
}

func (c *Context) explainMember(b *branch, l *view.LoadBalancer, x *view.Listener, m *view.Member, why string) {
	if b.node != nil {
		b.node.Add("sim", "load balancer "+l.Name, "pool %s, member %s at %s:%d: %s", x.Name, m.Label(), m.Address, m.Port, why)
	}
}

// unbalance gives what members answer the load balancer's address as its source, after the route is known.
func (c *Context) unbalance(r *view.Router, b *branch) {
	if len(r.Backends) == 0 {
		return
	}
	src, _ := c.readIPs(b)
	_, backend := r.Backends[src]
	if !backend && c.isICMPError() { // of somebody on the way, perhaps
		if t, _, why := c.tuple(b); why == drop.None {
			_, backend = r.Backends[t.Src]
		}
	}
	if backend && c.reverseNAT(tag.Destination, r.ID, b) == natApplied {
		b.nat, b.by[0] = b.nat&^translatedSrc, uuid.Nil // that of a load balancer may stand for another one
	}
}

// hairpin hides the client from a member on the client's own link, which would answer it directly: the router's address on the
// link takes its place. False ends the branch.
func (c *Context) hairpin(r *view.Router, in, out *view.Port, o outside, b *branch) bool {
	src, dst := c.readIPs(b)
	if !o.balanced || in.ID != out.ID || src != o.client {
		return true
	}
	own, ok := ownAddr(out, dst)
	return !ok || c.sourceNAT(r.ID, b, own, masqueradeLow, masqueradeHigh) != natEnded
}

// hairpinBack undoes hairpin for the answer.
func (c *Context) hairpinBack(r *view.Router, in *view.Port, b *branch) {
	src, dst := c.readIPs(b)
	if _, backend := r.Backends[src]; !backend {
		return
	}
	if hasAddr(in, dst) {
		c.reverseNAT(tag.Translation, r.ID, b)
	}
}
