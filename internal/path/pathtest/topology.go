// Package pathtest builds small virtual networks from text, injects packets described
// in text, and prints whole outcomes as text, so that a test reads as a story and
// asserts that nothing else happened.
package pathtest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// ID is the id of the object, port included, with the given name.
func ID(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)) }

// Topology is a snapshot under construction, and the state learnt in it.
type Topology struct {
	view.Snapshot
	State State
	names map[uuid.UUID]string
	allow map[uuid.UUID][]*model.SecurityGroupRule // by group
	pools map[string]*view.Pool
}

// Parse reads a network, one statement a line; # starts a comment.
//
//	bridge NAME [down]
//	router NAME [down]
//	vm NAME BRIDGE [MAC [ADDR...]]       exterior bridge port, seeded with what is given
//	uplink NAME ROUTER MAC PREFIX...     exterior router port
//	link A[=PREFIX,...] B[=PREFIX,...]   two devices; the ports are called A:B and B:A
//	plug NAME DEVICE [MAC PREFIX...]     unplugged port
//	route ROUTER DST [src PREFIX] [via ADDR] [out PORT] [blackhole] [reject] [weight N]
//	mtu PORT N
//	masquerade PORT
//	floating PORT ADDR FIXED-ADDR
//	subnet NAME BRIDGE CIDR [KEY=VALUE ...]  see subnet.go
//	mirror NAME PORT|DEVICE in|out|both[,before] TO-PORT [WORD...]
//	dscp PORT N
//	down PORT
//	vlan PORT ID                         an access port
//
// filters:
//
//	group NAME ADDR|PREFIX...            address group
//	member NAME PORT...                  port group
//	rule CHAIN ACTION [then=VERDICT] [log] [WORD...]  the next rule; for the words of its condition see Condition
//	     ACTION: a verdict, jump:CHAIN, dnat:TARGET,... snat:TARGET,... (ADDR[-ADDR][@PORT[-PORT]]), rev_dnat, rev_snat,
//	     push_vlan:ID, pop_vlan, set_dscp:N, redirect:PORT[/egress][/fail_open]
//	filter PORT in|out CHAIN
//	filter DEVICE pre|post CHAIN
//	secure PORT [MAC=PREFIX...]          it may send from its own addresses, or from these pairs alone
//	allow GROUP in|out [WORD...]         a rule of a security group; for its words see Allow
//	stateless GROUP
//	groups PORT [GROUP...]               security groups; no group allows nothing
//
// load balancers:
//
//	pool NAME [SECONDS]                        that a client comes back to its member
//	server POOL NAME ADDR PORT [WEIGHT|failed]
//	balancer NAME ROUTER ADDR [down]
//	listen BALANCER tcp|udp PORT POOL
//	checked ROUTER PORT                        the members of the router's pools are checked by PORT
//
// and what has been learnt:
//
//	mac BRIDGE MAC PORT [VLAN]
//	neighbour PORT ADDR MAC|failed
//	heard BRIDGE ADDR MAC [VLAN]
func Parse(text string) (*Topology, error) {
	t := &Topology{
		Snapshot: view.Snapshot{
			Revision: 1,
			Ports:    map[uuid.UUID]*view.Port{},
			Bridges:  map[uuid.UUID]*view.Bridge{},
			Routers:  map[uuid.UUID]*view.Router{},
			Chains:   map[uuid.UUID]*view.Chain{},
			Groups:   map[uuid.UUID]*view.AddressGroup{},
			Security: map[uuid.UUID]*view.SecurityGroup{},

			Balancers: map[uuid.UUID]*view.LoadBalancer{},
		},
		State: newState(),
		names: map[uuid.UUID]string{},
		allow: map[uuid.UUID][]*model.SecurityGroupRule{},
		pools: map[string]*view.Pool{},
	}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if err := t.statement(f); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", i+1, line, err)
		}
	}
	t.seed()
	t.members()
	return t, nil
}

// MustParse is Parse for texts that are known to be right.
func MustParse(text string) *Topology {
	t, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return t
}

func (t *Topology) statement(f []string) (err error) {
	defer func() { // a missing word or unknown name is a fault of the text
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	up := f[len(f)-1] != "down"
	switch f[0] {
	case "bridge":
		t.Bridges[t.name(f[1])] = &view.Bridge{ID: ID(f[1]), Name: f[1], AdminUp: up,
			MACs: map[view.LinkMAC]uuid.UUID{}, Neighbours: map[view.LinkAddr]match.MAC{}}
	case "router":
		t.Routers[t.name(f[1])] = &view.Router{ID: ID(f[1]), Name: f[1], AdminUp: up, Table: &Routes{}}
	case "vm":
		p := t.add(f[1], f[2])
		p.Host, p.Interface = ID("host"), "tap-"+f[1]
		if len(f) > 3 {
			p.MAC = t.MAC(f[3])
		}
		for _, a := range f[min(4, len(f)):] {
			ip := netip.MustParseAddr(a)
			p.Addrs = append(p.Addrs, netip.PrefixFrom(ip, ip.BitLen()))
		}
	case "uplink", "plug":
		p := t.add(f[1], f[2])
		if f[0] == "uplink" {
			p.Host, p.Interface = ID("host"), "eth-"+f[1]
		}
		if len(f) > 3 {
			t.address(p, t.MAC(f[3]), f[4:])
		}
	case "link":
		t.link(f[1], f[2])
	case "route":
		t.route(f[1], f[2:])
	case "subnet":
		t.subnet(f[1], f[2], f[3:])
	case "mtu":
		t.port(f[1]).MTU = number(f[2])
	case "masquerade":
		t.nat(f[1]).Masquerade = true
	case "floating":
		p, from, to := t.nat(f[1]), addr(f[2]), addr(f[3])
		if p.Floating == nil {
			p.Floating, p.Fixed = map[match.Addr]match.Addr{}, map[match.Addr]match.Addr{}
		}
		p.Floating[from], p.Fixed[to] = to, from
	case "mirror":
		return t.mirror(f[1], f[2], f[3], f[4], f[5:])
	case "dscp":
		dscp := uint8(number(f[2]))
		t.port(f[1]).DSCP = &dscp
	case "down":
		t.port(f[1]).AdminUp = false
	case "vlan":
		t.port(f[1]).VLAN = uint16(number(f[2]))
	case "mac":
		vlan := 0
		if len(f) > 4 {
			vlan = number(f[4])
		}
		t.State.macs[macKey{ID(f[1]), uint16(vlan), t.MAC(f[2])}] = t.port(f[3]).ID
	case "neighbour":
		n := neighbour{failed: f[3] == "failed"}
		if !n.failed {
			n.mac = t.MAC(f[3])
		}
		t.State.neighbours[addrKey{id: t.port(f[1]).ID, addr: addr(f[2])}] = n
	case "heard":
		k := addrKey{id: ID(f[1]), addr: addr(f[2])}
		if len(f) > 4 {
			k.vlan = uint16(number(f[4]))
		}
		t.State.neighbours[k] = neighbour{mac: t.MAC(f[3])}
	default:
		return t.policy(f)
	}
	return nil
}

func (t *Topology) name(s string) uuid.UUID {
	t.names[ID(s)] = s
	return ID(s)
}

// add makes a port of a device.
func (t *Topology) add(name, device string) *view.Port {
	p := &view.Port{ID: t.name(name), Name: name, AdminUp: true}
	if t.Bridges[ID(device)] != nil {
		p.Bridge = ID(device)
	} else {
		r := t.Routers[ID(device)]
		p.Router = r.ID
		r.Ports = append(r.Ports, p.ID)
	}
	t.Ports[p.ID] = p
	return p
}

// link joins two devices. A router's end has prefixes and a MAC made from its name.
func (t *Topology) link(a, b string) {
	a, pa, _ := strings.Cut(a, "=")
	b, pb, _ := strings.Cut(b, "=")
	p, q := t.add(a+":"+b, a), t.add(b+":"+a, b)
	p.Peer, q.Peer = q.ID, p.ID
	for _, x := range []struct {
		p        *view.Port
		prefixes string
	}{{p, pa}, {q, pb}} {
		if x.p.Router != uuid.Nil {
			t.address(x.p, match.MAC{0xac, x.p.ID[0], x.p.ID[1], x.p.ID[2], x.p.ID[3], x.p.ID[4]},
				strings.FieldsFunc(x.prefixes, func(r rune) bool { return r == ',' }))
		}
	}
}

func linkLocal(mac match.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// address gives a router port its addresses, with the routes that follow from them.
func (t *Topology) address(p *view.Port, mac match.MAC, prefixes []string) {
	p.MAC = mac
	p.LinkLocal = linkLocal(mac)
	table := t.Routers[p.Router].Table.(*Routes)
	for _, s := range prefixes {
		x := netip.MustParsePrefix(s)
		p.Addrs = append(p.Addrs, x)
		table.add(view.Route{Dst: x.Masked(), NextHop: view.ToPort, Port: p.ID})
		table.add(view.Route{Dst: netip.PrefixFrom(x.Addr(), x.Addr().BitLen()), NextHop: view.ToLocal, Port: p.ID})
	}
}

func (t *Topology) route(router string, f []string) {
	rt := view.Route{ID: ID(strings.Join(f, " ")), Dst: netip.MustParsePrefix(f[0]), Weight: 100}
	for f = f[1:]; len(f) > 0; f = f[1:] {
		switch f[0] {
		case "blackhole":
			rt.NextHop = view.Blackhole
			continue
		case "reject":
			rt.NextHop = view.Reject
			continue
		case "via":
			rt.Gateway = netip.MustParseAddr(f[1])
		case "out":
			rt.Port = t.port(f[1]).ID
		case "src":
			rt.Src = netip.MustParsePrefix(f[1])
		case "weight":
			rt.Weight = number(f[1])
		default:
			panic("unknown word " + f[0])
		}
		f = f[1:]
	}
	t.Routers[ID(router)].Table.(*Routes).add(rt)
}

// seed fills the bridges' tables from the ports around them.
func (t *Topology) seed() {
	for _, p := range t.Ports {
		br := t.Bridges[p.Bridge]
		if br == nil || p.Host == uuid.Nil && p.Peer == uuid.Nil {
			continue
		}
		if p.AdminUp { // as package mirror has it, one that is down keeps its place among the seeds
			br.Ports = append(br.Ports, p.ID)
		}
		br.VLANAware = br.VLANAware || p.VLAN != 0
		owner := p
		if p.Peer != uuid.Nil {
			owner = t.Ports[p.Peer]
		}
		if owner.MAC == (match.MAC{}) {
			continue
		}
		br.MACs[view.LinkMAC{MAC: owner.MAC, VLAN: p.VLAN}] = p.ID
		for _, a := range owner.Addrs {
			br.Neighbours[view.LinkAddr{Addr: match.AddrFrom(a.Addr()), VLAN: p.VLAN}] = owner.MAC
		}
		if owner.LinkLocal.IsValid() {
			br.Neighbours[view.LinkAddr{Addr: match.AddrFrom(owner.LinkLocal), VLAN: p.VLAN}] = owner.MAC
		}
	}
	for _, p := range t.Ports {
		p.Rules = t.translated(p.Inbound, p.Outbound)
	}
	for _, r := range t.Routers {
		r.Rules = t.translated(r.Pre, r.Post)
	}
	for _, br := range t.Bridges {
		br.Rules = t.translated(br.Pre, br.Post)
		slices.SortFunc(br.Ports, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	}
}

// nat is a port of a router, which translates at it.
func (t *Topology) nat(name string) *view.Port {
	p := t.port(name)
	if r := t.Routers[p.Router]; !slices.Contains(r.NAT, p.ID) {
		r.NAT = append(r.NAT, p.ID)
	}
	return p
}

func (t *Topology) port(name string) *view.Port {
	p := t.Ports[ID(name)]
	if p == nil {
		panic("no port " + name)
	}
	return p
}

// MAC reads an address, or finds that of the port with the given name.
func (t *Topology) MAC(s string) match.MAC {
	if p := t.Ports[ID(s)]; p != nil {
		return p.MAC
	}
	if s == "broadcast" {
		return match.Broadcast
	}
	var m match.MAC
	parts := strings.Split(s, ":")
	if len(parts) != len(m) {
		panic("no MAC " + s)
	}
	for i, x := range parts {
		b, err := strconv.ParseUint(x, 16, 8)
		if err != nil {
			panic("no MAC " + s)
		}
		m[i] = byte(b)
	}
	return m
}

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
