package attacks

import (
	"fmt"
	"net/netip"
	"strings"
)

// VM is one of the network, with all that another implementation of it needs to know, too.
type VM struct {
	Name      string
	Bridge    string // blue, red or outside
	MAC       string
	Addresses []netip.Prefix // that the VM has; carol has none, and answers nothing
	Gateway   netip.Addr     // IPv4
	Claims    []netip.Addr   // that its port is known to have
	Group     string         // its security group; none: no port security either
}

// Router legs of the bridges.
var Legs = []struct {
	Bridge, MAC string
	Addresses   []netip.Prefix
}{
	{"blue", "02:00:00:00:01:01", prefixes("10.0.1.1/24", "fd00:1::1/64")},
	{"red", "02:00:00:00:02:01", prefixes("10.0.2.1/24", "fd00:2::1/64")},
	{"outside", "02:00:00:00:03:01", prefixes("203.0.113.1/24")},
}

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// VMs are alice and bob, the victims; carol and world, where attacks go to; and so many rogues of either kind.
func VMs(rogues int) []VM {
	vm := func(name, bridge, group string, net, host int, silent bool) VM {
		v := VM{Name: name, Bridge: bridge, Group: group, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", net, host),
			Gateway: netip.AddrFrom4([4]byte{10, 0, byte(net), 1})}
		own := prefixes(fmt.Sprintf("10.0.%d.%d/24", net, host), fmt.Sprintf("fd00:%d::%x/64", net, host))
		if bridge == "outside" {
			own, v.Gateway = prefixes(fmt.Sprintf("203.0.113.%d/24", host)), netip.Addr{}
		}
		for _, p := range own {
			v.Claims = append(v.Claims, p.Addr())
		}
		if !silent {
			v.Addresses = own
		}
		return v
	}
	list := []VM{
		vm("alice", "blue", "victim", 1, 10, false), vm("bob", "red", "victim", 2, 10, false),
		vm("carol", "red", "sink", 2, 66, true), vm("world", "outside", "", 3, 100, true),
	}
	for i := range rogues {
		list = append(list, vm(Rogue(i, false), "blue", "rogue", 1, 100+i, false), vm(Rogue(i, true), "blue", "", 1, 150+i, false))
	}
	return list
}

// Document is the network: two bridges behind a router, a third one behind address translation, DHCP, and stateful security groups.
func Document(rogues int) string {
	var b strings.Builder
	b.WriteString("kind: lab\nname: attacks\n---\n{kind: host, name: h1}\n---\n{kind: router, name: tenant}\n")
	for _, l := range Legs {
		fmt.Fprintf(&b, "---\n{kind: bridge, name: %s}\n", l.Bridge)
		fmt.Fprintf(&b, "---\nkind: port\nname: tenant-%s\nrouter: tenant\nmac: %s\naddresses: [%s]\nmasquerade: %v\npeer: %[1]s-uplink\n", l.Bridge, l.MAC, quoted(l.Addresses), l.Bridge == "outside")
		fmt.Fprintf(&b, "---\n{kind: port, name: %s-uplink, bridge: %[1]s}\n", l.Bridge)
	}
	b.WriteString("---\n{kind: subnet, name: blue4, bridge: blue, cidr: 10.0.1.0/24, gateway: 10.0.1.1}\n")
	b.WriteString("---\n{kind: route, name: to-carol, router: tenant, destination: " + sinkRoute + ", port: tenant-red, gateway: " + sink + "}\n")
	for _, g := range []string{"victim", "sink", "rogue"} {
		fmt.Fprintf(&b, "---\n{kind: security_group, name: %s}\n", g)
		for _, family := range []string{"IPv4", "IPv6"} {
			fmt.Fprintf(&b, "---\n{kind: security_group_rule, name: %s-out-%s, security_group: %[1]s, direction: egress, ethertype: %[2]s}\n", g, family)
		}
	}
	b.WriteString("---\n{kind: security_group_rule, name: sink-in, security_group: sink, direction: ingress}\n")
	b.WriteString("---\n{kind: security_group_rule, name: victim-echo, security_group: victim, direction: ingress, protocol: udp, port_range_min: 7, port_range_max: 7}\n")
	b.WriteString("---\n{kind: security_group_rule, name: victim-stream, security_group: victim, direction: ingress, protocol: tcp, port_range_min: 5001, port_range_max: 5001}\n")
	for _, v := range VMs(rogues) {
		fmt.Fprintf(&b, "---\nkind: port\nname: %s\nbridge: %s\nmac: %s\naddresses: [%s]\nbinding: {host: h1, interface: tap-%[1]s}\n", v.Name, v.Bridge, v.MAC, quoted(v.Claims))
		if v.Group != "" {
			fmt.Fprintf(&b, "port_security: true\nsecurity_groups: [%s]\n", v.Group)
		}
		fmt.Fprintf(&b, "---\nkind: vm\nname: %s\nport: %[1]s\n", v.Name)
		if len(v.Addresses) == 0 {
			b.WriteString("addresses: []\n")
		}
		if !v.Gateway.IsValid() {
			b.WriteString("gateways: []\n")
		}
	}
	return b.String()
}

func quoted[T fmt.Stringer](list []T) string {
	var s []string
	for _, x := range list {
		s = append(s, `"`+x.String()+`"`)
	}
	return strings.Join(s, ", ")
}

// PolicyRule is one that a tenant may write into its own group: from prefixes and ports of all lengths a classifier makes a mask each
// (Csikor et al.: Tuple Space Explosion, CoNEXT 2019).
type PolicyRule struct {
	Prefix   netip.Prefix
	Min, Max uint16
}

// Policy is what the attack of that name injects.
func Policy() (rules []PolicyRule) {
	base := netip.MustParsePrefix(sinkRoute)
	for bits := base.Bits() + 1; bits <= 32; bits++ {
		for shift := 0; shift < 16; shift += 2 {
			a := base.Addr().As4()
			a[3] |= 1
			low := uint16(0x8000)
			rules = append(rules, PolicyRule{netip.PrefixFrom(netip.AddrFrom4(a), bits).Masked(), low, low | uint16(1<<shift-1)})
		}
	}
	return rules
}

// PolicyDocument is Policy in the rogues' group.
func PolicyDocument() string {
	var b strings.Builder
	for i, r := range Policy() {
		fmt.Fprintf(&b, "---\n{kind: security_group_rule, name: policy-%d, security_group: rogue, direction: egress, protocol: udp, remote_ip_prefix: %s, port_range_min: %d, port_range_max: %d}\n", i, r.Prefix, r.Min, r.Max)
	}
	return b.String()
}
