package interop

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// generator makes networks and packets from a seed.
type generator struct {
	*rand.Rand
	macs int // of the network at hand
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 0x6f766e))}
}

// often is true in n of 100 cases.
func (g *generator) often(n int) bool { return g.IntN(100) < n }

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

func (g *generator) mac() match.MAC {
	g.macs++
	return match.MAC{0x02, 0, 0, 0, byte(g.macs >> 8), byte(g.macs)}
}

// network makes one: switches behind one or two tenant routers; perhaps an outside switch, to which the first router translates,
// and a link between the routers.
func (g *generator) network(name string) *network {
	g.macs = 0
	n := &network{name: name}
	for i := range 1 + g.IntN(2) {
		n.routers = append(n.routers, &vrouter{name: fmt.Sprintf("%sr%d", name, i), down: g.often(4)})
	}
	for i := range 1 + g.IntN(3) {
		g.inside(n, i)
	}
	if len(n.routers) == 2 {
		g.transit(n)
	}
	if g.often(60) {
		g.outside(n, n.routers[0])
	}
	for _, r := range n.routers {
		g.routes(n, r)
		if g.often(25) {
			r.policy = g.rules(n, 1+g.IntN(3), []string{"allow", "drop"})
		}
	}
	for _, p := range n.rports() {
		p.down = g.often(4) && p != p.on.gate
	}
	for _, s := range n.switches {
		g.filters(n, s)
	}
	return n
}

func (g *generator) inside(n *network, i int) {
	s := &vswitch{name: fmt.Sprintf("%ss%d", n.name, i), stateful: g.often(50), net4: prefix("10.0.%d.0/24", i), net6: prefix("fd00:%d::/64", i+1)}
	n.switches = append(n.switches, s)
	g.populate(n, s, 2+g.IntN(3))
	r := pick(g, n.routers)
	p := &rport{name: fmt.Sprintf("%s-%s", r.name, s.name), on: r, sw: s, mac: g.mac(),
		addrs: []netip.Prefix{netip.PrefixFrom(nth(s.net4, 1), 24), netip.PrefixFrom(nth(s.net6, 1), 64)}}
	r.ports = append(r.ports, p)
	s.rports = append(s.rports, p)
}

func (g *generator) populate(n *network, s *vswitch, vms int) {
	for j := range vms {
		v := &vm{name: fmt.Sprintf("%sv%d", s.name, j), on: s, mac: g.mac(), v4: nth(s.net4, 10+j), v6: nth(s.net6, 10+j),
			unknown: g.often(12), down: g.often(5)}
		v.secured = !v.unknown && g.often(30)
		s.vms = append(s.vms, v)
	}
}

// transit links the two routers, with routes for what is behind the other.
func (g *generator) transit(n *network) {
	a, b := n.routers[0], n.routers[1]
	p := &rport{name: a.name + "-" + b.name, on: a, mac: g.mac(), addrs: []netip.Prefix{prefix("192.168.9.1/30"), prefix("fd99::1/64")}}
	q := &rport{name: b.name + "-" + a.name, on: b, mac: g.mac(), addrs: []netip.Prefix{prefix("192.168.9.2/30"), prefix("fd99::2/64")}}
	p.peer, q.peer = q, p
	a.ports, b.ports = append(a.ports, p), append(b.ports, q)
	for _, x := range []struct{ from, to *rport }{{p, q}, {q, p}} {
		for _, s := range n.switches {
			if len(s.rports) > 0 && s.rports[0].on == x.to.on && g.often(90) {
				x.from.on.routes = append(x.from.on.routes,
					vroute{dst: s.net4, via: x.to.v4(), out: x.from}, vroute{dst: s.net6, via: x.to.v6(), out: x.from})
			}
		}
	}
	b.routes = append(b.routes, vroute{dst: prefix("0.0.0.0/0"), via: p.v4(), out: q})
}

// outside is a switch with a few hosts, where the router has its default route, masquerades, and has floating IPs.
func (g *generator) outside(n *network, r *vrouter) {
	s := &vswitch{name: n.name + "ext", net4: prefix("203.0.113.0/24"), net6: prefix("fd77::/64")}
	n.switches = append(n.switches, s)
	g.populate(n, s, 2)
	s.vms[0].secured, s.vms[0].down, s.vms[0].unknown = false, false, false // the gateway
	p := &rport{name: r.name + "-" + s.name, on: r, sw: s, mac: g.mac(), masquerade: g.often(70),
		addrs: []netip.Prefix{prefix("203.0.113.1/24"), prefix("fd77::1/64")}}
	r.ports, r.gate = append(r.ports, p), p
	s.rports = append(s.rports, p)
	r.routes = append(r.routes, vroute{dst: prefix("0.0.0.0/0"), via: s.vms[0].v4, out: p}, vroute{dst: prefix("::/0"), via: s.vms[0].v6, out: p})
	at := 100
	for _, v := range n.vms() {
		if v.on != s && v.on.rports[0].on == r && g.often(35) {
			r.fips = append(r.fips, fip{nth(s.net4, at), v.v4})
			at++
		}
	}
}

// routes adds a few oddities: black holes, more specific prefixes, next hops that do not exist.
func (g *generator) routes(n *network, r *vrouter) {
	if g.often(30) {
		r.routes = append(r.routes, vroute{dst: prefix("172.16.0.0/12"), discard: true})
	}
	if len(r.ports) == 0 {
		return
	}
	p := pick(g, r.ports)
	if g.often(30) {
		r.routes = append(r.routes, vroute{dst: prefix("172.16.5.0/24"), via: g.neighbour(p, 0), out: p})
	}
	if g.often(20) {
		r.routes = append(r.routes, vroute{dst: prefix("fd55::/32"), via: g.neighbour(p, 1), out: p})
	}
}

// neighbour is an address on the link of a router's port, mostly one of a VM.
func (g *generator) neighbour(p *rport, i int) netip.Addr {
	if p.peer != nil {
		return p.peer.addrs[i].Addr()
	}
	return nth(p.addrs[i].Masked(), 9+g.IntN(5))
}

func (g *generator) filters(n *network, s *vswitch) {
	if g.often(30) {
		s.stateful = false
		return
	}
	actions := []string{"allow", "allow", "drop", "drop", "reject", "jump"}
	for _, v := range s.vms {
		if g.often(45) {
			v.in = g.rules(n, 1+g.IntN(4), actions)
		}
		if g.often(45) {
			v.out = g.rules(n, 1+g.IntN(4), actions)
		}
	}
}

func (g *generator) rules(n *network, count int, actions []string) (rs []rule) {
	for range count {
		r := rule{cond: g.cond(n), action: pick(g, actions)}
		if r.action == "jump" {
			r.sub = g.rules(n, 1+g.IntN(3), []string{"allow", "drop", "return"})
		}
		rs = append(rs, r)
	}
	return rs
}

func (g *generator) cond(n *network) (c cond) {
	c.icmpType = -1
	c.family = pick(g, []int{0, 4, 4, 6})
	switch g.IntN(5) {
	case 0:
		c.proto = packet.ProtoTCP
	case 1, 2:
		c.proto = packet.ProtoUDP
	case 3:
		if c.family == 0 {
			c.family = 4
		}
		c.proto = packet.ProtoICMP
		if c.family == 6 {
			c.proto = packet.ProtoICMPv6
		}
		if g.often(50) {
			c.icmpType = pick(g, map[int][]int{4: {0, 3, 8}, 6: {1, 128, 129}}[c.family])
		}
	}
	if c.proto == packet.ProtoTCP || c.proto == packet.ProtoUDP {
		if g.often(50) {
			lo := pick(g, ports)
			c.dports = [2]uint16{lo, lo + uint16(pick(g, []int{0, 0, 1000}))}
		}
		if g.often(20) {
			lo := pick(g, ports)
			c.sports = [2]uint16{lo, lo + uint16(pick(g, []int{0, 0, 1000}))}
		}
	}
	if c.family == 0 && c.proto == 0 {
		c.family = 4
	}
	if c.family != 0 {
		if g.often(35) {
			c.src, c.notSrc = g.prefix(n, c.family), g.often(15)
		}
		if g.often(35) {
			c.dst, c.notDst = g.prefix(n, c.family), g.often(15)
		}
	}
	return c
}

// ports are few, so that rules and packets meet.
var ports = []uint16{22, 53, 80, 443, 1000, 5000, 5001, 40000}

// prefix is one of a host, a subnet, or more, of those that there are.
func (g *generator) prefix(n *network, family int) netip.Prefix {
	v := pick(g, n.vms())
	a, bits := v.v4, pick(g, []int{32, 32, 24, 28, 16})
	if family == 6 {
		a, bits = v.v6, pick(g, []int{128, 128, 64, 124, 32})
	}
	p, _ := a.Prefix(bits)
	return p
}
