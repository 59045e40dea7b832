package interop

import (
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// followers are the packets that come after one that reached another VM untranslated: the same again, the answer,
// and an ICMP error about it.
func (g *generator) followers(n *network, x *pair) (ps []*pkt) {
	p := x.p
	if len(x.ours) != 1 || !x.ours.equal(x.theirs) || p.eth.VLAN != 0 {
		return nil
	}
	o := x.ours[0]
	if o.kind != p.kind || o.src != p.src || o.dst != p.dst || o.ttl < 2 || p.kind != "udp" && p.kind != "tcp" && p.kind != "echo" {
		return nil
	}
	again := *p
	again.ct = "est"
	to := n.vmOf(o.port)
	if to.v4 != p.dst && to.v6 != p.dst {
		return nil // it is another's, and would not answer
	}
	back := &pkt{at: to, kind: p.kind, src: p.dst, dst: p.src, ttl: 64, sport: p.dport, dport: p.sport, ct: "est,rpl", began: p.at,
		eth: packet.Ether{Src: o.ethDst, Dst: o.ethSrc}}
	if p.kind == "echo" {
		back.kind, back.sport = "echoreply", p.sport
	}
	about := *back
	received := *p
	received.ttl = o.ttl
	about.kind, about.quoted, about.ct = "error", &received, "rel,rpl"
	about.eth = packet.Ether{Src: o.ethDst, Dst: o.ethSrc}
	if o.ethDst == (match.MAC{}) {
		return nil
	}
	if g.often(50) {
		ps = append(ps, &again)
	}
	if g.often(80) {
		ps = append(ps, back)
	}
	if g.often(40) {
		ps = append(ps, &about)
	}
	return ps
}
