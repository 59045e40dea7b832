package interop

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// difference is one that docs/ovn-differences.md explains. It takes from both verdicts what differs by it, and nothing
// else; true when there was any.
type difference struct {
	name string
	take func(x *pair, ours, theirs *verdict) bool
}

// remove deletes the outputs that are so.
func remove(v *verdict, is func(o out) bool) bool {
	n := len(*v)
	*v = slices.DeleteFunc(*v, is)
	return len(*v) < n
}

// couple deletes from both the pairs of which one is to the other as it says.
func couple(ours, theirs *verdict, is func(a, b out) bool) (any bool) {
	for i := 0; i < len(*ours); i++ {
		a := (*ours)[i]
		j := slices.IndexFunc(*theirs, func(b out) bool { return a != b && is(a, b) })
		if j < 0 {
			continue
		}
		*ours, *theirs = slices.Delete(*ours, i, i+1), slices.Delete(*theirs, j, j+1)
		i, any = i-1, true
	}
	return any
}

// isError reports an ICMP error that a device made: of one type and code in IPv4, another in IPv6.
func isError(o out, four, six [2]uint8) bool {
	return o.kind == "*error" && (o.src.Is4() && o.icmp == four || o.src.Is6() && o.icmp == six)
}

// asks reports a request of a router for the MAC address of a.
func asks(o out, a netip.Addr) bool {
	return (o.kind == "*arp request" || o.kind == "*solicitation") && o.dst == a
}

// rejected reports what a switch of OVN answers for a filter.
func rejected(o out) bool {
	return o.kind == "*tcp reset" || isError(o, [2]uint8{3, 1}, [2]uint8{1, 1})
}

func isTimeExceeded(o out) bool { return isError(o, [2]uint8{11, 0}, [2]uint8{3, 0}) }

var differences = []difference{
	{"answer to the sender's MAC", func(x *pair, ours, theirs *verdict) bool {
		// OVN looks for the sender as for any destination, and may have to ask, or find it elsewhere.
		answer := func(o out) bool { return (o.kind == "*echo reply" || o.kind == "*error") && o.dst == x.p.src }
		asked := func(o out) bool { return asks(o, x.p.src) || asks(o, o.dst) && !x.p.at.on.has(x.p.src) }
		elsewhere := func(o out) bool {
			return (answer(o) || o.kind == "*tcp reset") && (o.ethDst != x.p.eth.Src || o.port != x.p.at.name || !x.p.at.on.has(x.p.src))
		}
		first := x.p.at.on.rports[0].on
		far := x.net.router(x.p.dst) != nil && x.net.router(x.p.dst) != first // it has no route back
		for _, o := range *ours {
			if !answer(o) && !asks(o, x.p.src) {
				return false
			}
			far = far || answer(o) && x.net.router(o.src) != first
		}
		for _, o := range *theirs {
			if !asked(o) && !elsewhere(o) {
				return false
			}
		}
		if len(*ours) == 0 && !strings.Contains(x.traced, ": generate ") || len(*theirs) == 0 && !far && x.p.at.on.has(x.p.src) {
			return false
		}
		*ours, *theirs = nil, nil
		return true
	}},
	{"question from the address itself", func(x *pair, ours, theirs *verdict) bool {
		// Who has the MAC address that would be the answer is not told it (RFC 5227 section 2.1, RFC 4862 section 5.4). OVN does
		// not tell the port.
		said := func(v verdict) bool {
			return len(v) == 1 && (v[0].kind == "*arp reply" || v[0].kind == "*advertisement") && v[0].port == x.p.at.name
		}
		flooded := func(v verdict) bool { return !slices.ContainsFunc(v, func(o out) bool { return o.kind != x.p.kind }) }
		switch {
		case said(*theirs) && (*theirs)[0].sha == x.p.eth.Src && flooded(*ours):
		case said(*ours) && (*ours)[0].sha == x.p.at.mac && (*ours)[0].sha != x.p.eth.Src && flooded(*theirs):
		default:
			return false
		}
		*ours, *theirs = nil, nil
		return true
	}},
	{"unknown unicast", func(x *pair, ours, theirs *verdict) bool {
		// OVN floods to those ports alone whose addresses are not told.
		return remove(ours, func(o out) bool {
			v := x.net.vmOf(o.port)
			return !v.unknown && !o.ethDst.IsMulticast() && o.ethDst != [6]byte{} && !v.on.told(o.ethDst) && !slices.Contains(*theirs, o)
		})
	}},
	{"device down", func(x *pair, ours, theirs *verdict) bool {
		// OVN forgets a router or a port of it that is down: its MAC address is unknown on the link.
		said := x.dropped(drop.AdminDown) && remove(ours, func(o out) bool { return isError(o, [2]uint8{3, 13}, [2]uint8{1, 1}) || asks(o, x.p.src) })
		resolved := remove(ours, func(o out) bool {
			return (o.kind == "*arp reply" || o.kind == "*advertisement") && x.p.at.on.downMAC(o.sha)
		})
		if resolved {
			return remove(theirs, func(o out) bool { return o.kind == x.p.kind })
		}
		flooded := remove(theirs, func(o out) bool {
			v := x.net.vmOf(o.port)
			return v.unknown && o.kind == x.p.kind && o.ethDst == x.p.eth.Dst && v.on.downMAC(o.ethDst)
		}) || x.p.at.on.downMAC(x.p.eth.Dst) && remove(theirs, rejected) // by the filter of such a port
		return said || flooded
	}},
	{"routes of a port that is down", func(x *pair, ours, theirs *verdict) bool {
		// Viaduct withdraws them, OVN keeps them; it answers for the address of the port, too.
		if !x.net.behindDown(x.p.dst) && !x.net.behindDown(x.p.src) {
			return false
		}
		*ours, *theirs = nil, nil
		return true
	}},
	{"routing loop", func(x *pair, ours, theirs *verdict) bool {
		return x.dropped(drop.Loop) && remove(theirs, isTimeExceeded)
	}},
	{"ICMP error that no translation knows", func(x *pair, ours, theirs *verdict) bool {
		return x.dropped(drop.NatProtocol) && remove(theirs, func(o out) bool {
			return (strings.HasSuffix(o.kind, "error") || o.kind == "*tcp reset") && x.masqueraded(o.src)
		})
	}},
	{"no route", func(x *pair, ours, theirs *verdict) bool {
		return x.dropped(drop.NoRoute) && remove(ours, func(o out) bool { return isError(o, [2]uint8{3, 0}, [2]uint8{1, 0}) || asks(o, x.p.src) }) &&
			(remove(theirs, func(o out) bool { return x.p.ttl <= 2 && isTimeExceeded(o) }) || true) // which it looks at first
	}},
	{"router's own ports", func(x *pair, ours, theirs *verdict) bool {
		// OVN resets TCP, and says nothing where it translates. It looks at the TTL first.
		if !x.dropped(drop.LocalNotTaken) {
			return false
		}
		said := remove(ours, func(o out) bool { return isError(o, [2]uint8{3, 3}, [2]uint8{1, 4}) || asks(o, x.p.src) })
		return remove(theirs, func(o out) bool {
			return o.kind == "*tcp reset" && x.p.kind == "tcp" || x.p.ttl == 1 && isTimeExceeded(o)
		}) || said
	}},
	{"reject at a switch", func(x *pair, ours, theirs *verdict) bool {
		// Both speak in the name of the destination, with other codes; ovn-trace does not show whom. The answer may have to find its
		// way, or be rejected in turn.
		if !x.dropped(drop.FilterReject) {
			return false
		}
		said := remove(ours, func(o out) bool {
			return isError(o, [2]uint8{3, 13}, [2]uint8{1, 1}) || o.kind == "*tcp reset" || asks(o, x.p.src)
		})
		return remove(theirs, rejected) || remove(theirs, func(o out) bool { return asks(o, o.dst) }) || said
	}},
	{"unicast in a multicast frame", func(x *pair, ours, theirs *verdict) bool {
		// OVN's routers take it (against RFC 1812 section 5.3.4); ovn-trace shows what they rewrite in the other copies too.
		if !x.p.eth.Dst.IsMulticast() || !x.p.dst.IsValid() || x.p.dst.IsMulticast() || x.p.kind == "arp" {
			return false
		}
		routed := func(o out) bool { return x.net.isRouter(o.ethSrc) }
		any := couple(ours, theirs, func(a, b out) bool { return a.port == b.port && a.ethSrc == x.p.eth.Src && routed(b) })
		return remove(theirs, func(o out) bool { return routed(o) || o.kind[0] == '*' }) || any
	}},
	{"sender's own MAC", func(x *pair, ours, theirs *verdict) bool {
		// ovn-trace learns no MAC addresses: it does not know that the sender is behind the port that the frame came from.
		return x.p.eth.Src == x.p.eth.Dst && x.dropped(drop.Hairpin) && remove(theirs, func(o out) bool {
			return x.net.vmOf(o.port).unknown && o.kind == x.p.kind || rejected(o) // by the filter of such a port
		})
	}},
	{"next hop is a port that is down", func(x *pair, ours, theirs *verdict) bool {
		return x.dropped(drop.AdminDown) && remove(theirs, func(o out) bool {
			return asks(o, o.dst) && x.net.downVM(o.dst)
		})
	}},
	{"announcement of another's address", func(x *pair, ours, theirs *verdict) bool {
		// A switch of OVN answers it like a question.
		return x.p.kind == "arp" && x.p.src == x.p.dst && remove(theirs, func(o out) bool { return o.kind == "*arp reply" && o.port == x.p.at.name && o.src == x.p.dst }) &&
			(remove(ours, func(o out) bool { return o.kind == "arp" && !slices.Contains(*theirs, o) }) || true)
	}},
	{"other protocols from a secured port", func(x *pair, ours, theirs *verdict) bool {
		return x.p.kind == "other" && x.dropped(drop.SpoofedType) && remove(theirs, func(o out) bool { return o.kind == "other" })
	}},
	{"source of time exceeded", func(x *pair, ours, theirs *verdict) bool {
		// A router of OVN that translates answers with the packet's destination as the source.
		return couple(ours, theirs, func(a, b out) bool {
			own := x.net.router(a.src) != nil
			a.src = b.src
			return own && a == b && isTimeExceeded(a) && (b.src == x.p.dst || x.translates(b.src))
		})
	}},
	{"time exceeded off the link", func(x *pair, ours, theirs *verdict) bool {
		// In IPv6 a router of OVN tells those alone that are on the link of the port where the packet came in.
		return len(*theirs) == 0 && remove(ours, func(o out) bool {
			return o.src.Is6() && isTimeExceeded(o) && x.net.router(o.src) != x.p.at.on.rports[0].on
		})
	}},
	{"router's answer masqueraded", func(x *pair, ours, theirs *verdict) bool {
		return couple(ours, theirs, func(a, b out) bool {
			a.src = b.src
			return a == b && (a.kind == "*echo reply" || a.kind == "*error") && x.masqueraded(b.src)
		})
	}},
	{"echo reply to a router", func(x *pair, ours, theirs *verdict) bool {
		return x.p.kind == "echoreply" && x.dropped(drop.LocalNotTaken) && remove(theirs, func(o out) bool { return isError(o, [2]uint8{3, 2}, [2]uint8{1, 3}) || asks(o, x.p.src) })
	}},
	{"answers pass the router's policy", func(x *pair, ours, theirs *verdict) bool {
		return len(*theirs) == 0 && remove(ours, func(o out) bool {
			return (o.kind == "*echo reply" || o.kind == "*error") && x.net.policed(o) || asks(o, x.p.src) && x.net.policed(out{src: x.p.dst, dst: x.p.src})
		})
	}},
	{"solicitation filtered", func(x *pair, ours, theirs *verdict) bool {
		// Those that a router makes are, in ovn-trace, no neighbour discovery for a filter: they keep the packet's hop limit.
		return remove(ours, func(o out) bool {
			return o.kind == "*solicitation" && len(x.net.vmOf(o.port).out) > 0 && !slices.Contains(*theirs, o)
		})
	}},
	{"link-local source", func(x *pair, ours, theirs *verdict) bool {
		return x.p.src.IsLinkLocalUnicast() && x.dropped(drop.NoRoute) && remove(theirs, func(o out) bool { return o.src == x.p.src && o.ttl < x.p.ttl || o.kind[0] == '*' })
	}},
	{"port of a masqueraded source", func(x *pair, ours, theirs *verdict) bool {
		return couple(ours, theirs, func(a, b out) bool {
			other := a.sport != b.sport
			if a.sport = b.sport; x.hairpin() {
				a.ttl--
			}
			return other && x.masqueraded(a.src) && a == b
		})
	}},
	{"filter that asks for that port", func(x *pair, ours, theirs *verdict) bool {
		asked := func(o out) bool {
			return x.masqueraded(o.src) && slices.ContainsFunc(x.net.vmOf(o.port).out, func(r rule) bool { return r.cond.sports[1] != 0 })
		}
		return len(*ours)+len(*theirs) == 1 && (remove(ours, asked) || remove(theirs, asked))
	}},
	{"masqueraded on its way back out", func(x *pair, ours, theirs *verdict) bool {
		return couple(ours, theirs, func(a, b out) bool {
			translated := x.masqueraded(b.src)
			b.src, b.sport = a.src, a.sport
			return translated && a == b && x.p.at.on == x.gate().sw
		})
	}},
	{"TTL before black hole", func(x *pair, ours, theirs *verdict) bool {
		return x.p.ttl == 1 && x.dropped(drop.Blackhole) && remove(theirs, isTimeExceeded)
	}},
	{"hairpin counts twice", func(x *pair, ours, theirs *verdict) bool {
		return couple(ours, theirs, func(a, b out) bool {
			a.ttl--
			return x.hairpin() && a == b
		})
	}},
	{"hairpin ends between its two counts", func(x *pair, ours, theirs *verdict) bool {
		if !x.hairpin() || x.p.ttl > 3 || slices.ContainsFunc(*theirs, func(o out) bool { return !isTimeExceeded(o) && !asks(o, x.p.src) }) {
			return false
		}
		left := func(o out) bool { return o.ttl == 1 || asks(o, o.dst) }
		if len(*theirs) > 0 {
			*theirs = nil
			remove(ours, left)
			return true
		}
		return remove(ours, left)
	}},
	{"hairpin meets the policy twice", func(x *pair, ours, theirs *verdict) bool {
		// Each time with other addresses.
		if !x.hairpin() || len(x.gate().on.policy) == 0 || len(*ours)+len(*theirs) != 1 {
			return false
		}
		*ours, *theirs = nil, nil
		return true
	}},
	{"port security towards the VM", func(x *pair, ours, theirs *verdict) bool {
		return remove(ours, func(o out) bool {
			v := x.net.vmOf(o.port)
			return v.secured && !slices.Contains(*theirs, o) && (!o.ethDst.IsMulticast() && o.ethDst != v.mac || !v.takes(o.dst))
		})
	}},
	{"answer that is flooded", func(x *pair, ours, theirs *verdict) bool {
		// ovn-trace has one state of the connection for all ports, and takes the copy for an answer where nothing has been asked, too.
		return x.p.began != nil && remove(theirs, func(o out) bool {
			v := x.net.vmOf(o.port)
			return v != x.p.began && v.on.stateful && len(v.out) > 0 && o.kind == x.p.kind && !slices.Contains(*ours, o)
		})
	}},
	{"ARP for a translated address", func(x *pair, ours, theirs *verdict) bool {
		// OVN's routers answer on every link, and whoever asks. Where it floods at the same time, ovn-trace shows the answer in the
		// other copies too.
		if x.p.kind != "arp" || !x.translates(x.p.dst) || x.p.at.on == x.gate().sw && x.p.at.on.net4.Contains(x.p.src) {
			return false
		}
		answered := func(o out) bool { return o.kind == "*arp reply" && o.src == x.p.dst }
		couple(ours, theirs, func(a, b out) bool {
			return a.port == b.port && a.kind == "arp" && answered(b) && !slices.Contains(*theirs, a)
		})
		remove(theirs, answered)
		return true
	}},
	{"own floating IP", func(x *pair, ours, theirs *verdict) bool {
		return len(*theirs) == 0 && x.hairpin() && remove(ours, func(o out) bool { return o.port == x.p.at.name && o.src == x.p.dst && o.dst == x.p.src })
	}},
	{"tagged frame", func(x *pair, ours, theirs *verdict) bool {
		return x.p.eth.VLAN != 0 && len(*theirs) == 0 && remove(ours, func(o out) bool { return o.kind == x.p.kind })
	}},
}

// told reports whether the switch is told where a MAC address is.
func (s *vswitch) told(m [6]byte) bool {
	for _, v := range s.vms {
		if v.mac == m && !v.unknown {
			return true
		}
	}
	for _, p := range s.rports {
		if p.mac == m {
			return true
		}
	}
	return false
}

// downMAC reports whether it is that of a router's port that is down, or whose router is.
func (s *vswitch) downMAC(m [6]byte) bool {
	for _, p := range s.rports {
		if p.mac == m {
			return p.down || p.on.down
		}
	}
	return false
}

// takes reports whether the addresses of a secured VM hold a.
func (v *vm) takes(a netip.Addr) bool {
	return !a.IsValid() || a.IsMulticast() || a == v.v4 || a == v.v6 || a == linkLocal(v.mac) || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// gate is the router port that translates; nil: none does.
func (x *pair) gate() *rport {
	for _, r := range x.net.routers {
		if r.gate != nil {
			return r.gate
		}
	}
	return nil
}

// translates reports whether a is a floating or masquerading address.
func (x *pair) translates(a netip.Addr) bool {
	g := x.gate()
	return g != nil && (a == g.v4() || slices.ContainsFunc(g.on.fips, func(f fip) bool { return f.floating == a }))
}

func (x *pair) masqueraded(a netip.Addr) bool {
	g := x.gate()
	return g != nil && g.masquerade && a == g.v4() && x.p.src != a
}

// hairpin reports whether the packet goes from inside to a floating IP.
func (x *pair) hairpin() bool {
	g := x.gate()
	return g != nil && x.p.at.on != g.sw && slices.ContainsFunc(g.on.fips, func(f fip) bool { return f.floating == x.p.dst })
}

// isRouter reports whether a MAC address is that of a router's port.
func (n *network) isRouter(m [6]byte) bool {
	return slices.ContainsFunc(n.rports(), func(p *rport) bool { return p.mac == m })
}

// router is the one that has the address; nil: none.
func (n *network) router(a netip.Addr) *vrouter {
	for _, p := range n.rports() {
		if p.v4() == a || p.v6() == a {
			return p.on
		}
	}
	return nil
}

func (n *network) downVM(a netip.Addr) bool {
	return slices.ContainsFunc(n.vms(), func(v *vm) bool { return v.down && (v.v4 == a || v.v6 == a) })
}

// has reports whether the switch's networks hold a, or it is link-local.
func (s *vswitch) has(a netip.Addr) bool {
	return s.net4.Contains(a) || s.net6.Contains(a) || a.IsLinkLocalUnicast()
}

// behindDown reports whether a, or the fixed address of the floating IP a, is on the link of a router's port that is down.
func (n *network) behindDown(a netip.Addr) bool {
	for _, r := range n.routers {
		for _, f := range r.fips {
			if f.floating == a {
				a = f.fixed
			}
		}
	}
	for _, r := range n.routers {
		for _, x := range r.routes {
			if !x.discard && x.out.down && x.dst.Contains(a) {
				return true
			}
		}
	}
	for _, p := range n.rports() {
		for _, x := range p.addrs {
			if p.down && x.Contains(a) {
				return true
			}
		}
	}
	return false
}

// policed reports whether a router's policy may drop what a router has made.
func (n *network) policed(o out) bool {
	for _, r := range n.routers {
		for _, p := range r.policy {
			c := p.cond
			if p.action == "drop" && (c.proto == 0 || c.proto == packet.ProtoICMP || c.proto == packet.ProtoICMPv6) && c.family != map[bool]int{true: 6, false: 4}[o.src.Is4()] &&
				(!c.src.IsValid() || c.src.Contains(o.src) != c.notSrc) && (!c.dst.IsValid() || c.dst.Contains(o.dst) != c.notDst) {
				return true
			}
		}
	}
	return false
}
