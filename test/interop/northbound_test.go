package interop

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// commands is the network as ovn-nbctl makes it.
func commands(n *network) (args []string) {
	add := func(words ...string) { args = append(append(args, "--"), words...) }
	for _, r := range n.routers {
		add("lr-add", r.name)
		if r.down {
			add("set", "Logical_Router", r.name, "enabled=false")
		}
		for _, p := range r.ports {
			words := append([]string{"lrp-add", r.name, p.name, p.mac.String()}, texts(p.addrs)...)
			if p.peer != nil {
				words = append(words, "peer="+p.peer.name)
			}
			add(words...)
			if p.down {
				add("lrp-set-enabled", p.name, "disabled")
			}
		}
	}
	for _, s := range n.switches {
		add("ls-add", s.name)
		for _, v := range s.vms {
			addresses := fmt.Sprintf("%s %s %s", v.mac, v.v4, v.v6)
			add("lsp-add", s.name, v.name)
			if v.secured {
				add("lsp-set-port-security", v.name, addresses)
			}
			if v.unknown {
				addresses = "unknown"
			}
			add("lsp-set-addresses", v.name, addresses)
			if v.down {
				add("lsp-set-enabled", v.name, "disabled")
			}
		}
		for _, p := range s.rports {
			name := s.name + "-" + p.on.name
			add("lsp-add", s.name, name)
			add("lsp-set-type", name, "router")
			add("lsp-set-addresses", name, "router")
			add("lsp-set-options", name, "router-port="+p.name)
		}
		acls(s, add)
	}
	for _, r := range n.routers {
		for _, rt := range r.routes {
			if rt.discard {
				add("lr-route-add", r.name, rt.dst.String(), "discard")
			} else {
				add("lr-route-add", r.name, rt.dst.String(), rt.via.String(), rt.out.name)
			}
		}
		for i, m := range flatten(r.policy, "", nil) {
			add("lr-policy-add", r.name, fmt.Sprint(1000-i), m.match, m.action)
		}
		if r.gate == nil {
			continue
		}
		add("lrp-set-gateway-chassis", r.gate.name, "hv1")
		if r.gate.masquerade {
			for _, inside := range []string{"10.0.0.0/8", "192.168.9.0/30", "198.51.100.0/24"} {
				add("lr-nat-add", r.name, "snat", r.gate.v4().String(), inside)
			}
		}
		for _, f := range r.fips {
			add("lr-nat-add", r.name, "dnat_and_snat", f.floating.String(), f.fixed.String())
		}
	}
	return args
}

func texts(ps []netip.Prefix) (s []string) {
	for _, p := range ps {
		s = append(s, p.String())
	}
	return s
}

// acls are a switch's filters. One allow-related rule makes all of them follow connections.
func acls(s *vswitch, add func(...string)) {
	if s.stateful {
		add("acl-add", s.name, "from-lport", "1", `ip4.src == 255.255.255.255 && ip4.dst == 255.255.255.255 && udp.dst == 1`, "allow-related")
	}
	for _, v := range s.vms {
		for _, x := range []struct {
			rules    []rule
			dir, who string
		}{{v.in, "from-lport", "inport"}, {v.out, "to-lport", "outport"}} {
			for i, m := range flatten(x.rules, "", nil) {
				if m.action == "allow" && s.stateful {
					m.action = "allow-related"
				}
				add("acl-add", s.name, x.dir, fmt.Sprint(3000-i), fmt.Sprintf("%s == %q && (%s)", x.who, v.name, m.match), m.action)
			}
		}
	}
}

type flat struct{ match, action string }

// flatten turns rules that jump and return into a list by priority. What is in the chain jumped to holds for what came there; what
// returns is held against what follows in the calling chain, caller, first. (OVN 23.03 negates wrongly: with a negated
// "tcp && tcp.src >= 1000" in the match, a rule that is about UDP does not fit UDP.)
func flatten(rs []rule, guard string, caller []rule) (list []flat) {
	for i, r := range rs {
		m := guard + r.cond.expr()
		switch r.action {
		case "jump":
			list = append(list, flatten(r.sub, m+" && ", rs[i+1:])...)
		case "return":
			list = append(list, flatten(caller, m+" && ", nil)...)
			list = append(list, flat{m, "allow"})
		default:
			list = append(list, flat{m, r.action})
		}
	}
	return list
}

// expr is the condition in OVN's words.
func (c *cond) expr() string {
	var parts []string
	f := func(format string, a ...any) { parts = append(parts, fmt.Sprintf(format, a...)) }
	if c.family != 0 {
		f("ip%d", c.family)
	}
	name := map[uint8]string{packet.ProtoTCP: "tcp", packet.ProtoUDP: "udp", packet.ProtoICMP: "icmp4", packet.ProtoICMPv6: "icmp6"}[c.proto]
	if name != "" {
		f("%s", name)
	}
	is := map[bool]string{false: "==", true: "!="}
	if c.src.IsValid() {
		f("ip%d.src %s %s", c.family, is[c.notSrc], c.src)
	}
	if c.dst.IsValid() {
		f("ip%d.dst %s %s", c.family, is[c.notDst], c.dst)
	}
	for _, x := range []struct {
		field string
		r     [2]uint16
	}{{"src", c.sports}, {"dst", c.dports}} {
		if x.r[1] != 0 {
			f("%s.%s >= %d && %s.%s <= %d", name, x.field, x.r[0], name, x.field, x.r[1])
		}
	}
	if c.icmpType >= 0 && (c.proto == packet.ProtoICMP || c.proto == packet.ProtoICMPv6) {
		f("%s.type == %d", name, c.icmpType)
	}
	return strings.Join(parts, " && ")
}
