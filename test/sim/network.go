package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// network is what a seed's cloud begins as.
type network struct {
	hosts []string
	ops   []store.Op
	vms   []vmPlan
}

// vmPlan is a VM and the port that it is meant for.
type vmPlan struct {
	name, bridge, host string
	mac                match.MAC
	addr               netip.Addr
	prefix             netip.Prefix
	gateway            netip.Addr // zero: it knows its own link alone
}

func (n *network) add(objects ...model.Object) {
	for _, o := range objects {
		n.ops = append(n.ops, store.Op{Verb: store.Create, Object: o})
	}
}

func meta(name string) model.Meta { return model.Meta{ID: id(name), Name: name} }

func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// servers are the ports at which VMs answer; rules are about these.
var servers = []uint16{53, 80, 443, 8080}

// randomNetwork is one to two tenants with a router each, whose bridges have a few VMs, spread over two to four hosts; the tenants' routers
// meet on a bridge where the world is.
func randomNetwork(r *rand.Rand) *network {
	n := &network{}
	n.add(&model.TunnelZone{Meta: meta("zone")})
	for i := range 2 + r.IntN(3) {
		name := fmt.Sprintf("h%d", i+1)
		n.hosts = append(n.hosts, name)
		n.add(&model.Host{Meta: meta(name), Tunnels: []model.TunnelEnd{{ZoneID: id("zone"), Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}}})
	}
	n.add(&model.Bridge{Meta: meta("ext"), AdminStateUp: true})
	for i := range 1 + r.IntN(2) {
		n.vm(r, fmt.Sprintf("world%d", i+1), "ext", netip.AddrFrom4([4]byte{203, 0, 113, byte(200 + i)}), netip.Addr{}, nil, false)
	}
	for t := range 1 + r.IntN(2) {
		n.tenant(r, t+1)
	}
	return n
}

func (n *network) tenant(r *rand.Rand, t int) {
	name := func(format string, args ...any) string { return fmt.Sprintf("t%d-", t) + fmt.Sprintf(format, args...) }
	n.add(&model.Chain{Meta: meta(name("chain"))}, &model.SecurityGroup{Meta: meta(name("web")), Stateful: true}, &model.SecurityGroup{Meta: meta(name("db")), Stateful: !chance(r, 4)})
	for _, g := range []string{name("web"), name("db")} {
		if !chance(r, 8) {
			n.add(&model.SecurityGroupRule{Meta: meta(g + "-out"), GroupID: id(g), Direction: model.Egress, EtherType: model.IPv4})
		}
	}
	n.add(&model.SecurityGroupRule{Meta: meta(name("web-in")), GroupID: id(name("web")), Direction: model.Ingress, EtherType: model.IPv4})
	n.add(&model.SecurityGroupRule{Meta: meta(name("db-in")), GroupID: id(name("db")), Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: id(name("web"))})

	router := &model.Router{Meta: meta(name("router")), AdminStateUp: true}
	if chance(r, 4) {
		router.PreRoutingID = id(name("chain"))
	}
	n.add(router)
	n.link(name("ext"), "ext", name("router"), prefix("203.0.113.%d/24", 10+t), !chance(r, 4))
	for b := range 1 + r.IntN(2) {
		bridge := name("net%d", b+1)
		n.add(&model.Bridge{Meta: meta(bridge), AdminStateUp: true})
		n.link(bridge+"-gw", bridge, name("router"), prefix("10.%d.%d.1/24", t, b+1), false)
		for i := range 1 + r.IntN(3) {
			var groups []uuid.UUID
			secured := chance(r, 2)
			if secured {
				groups = []uuid.UUID{id(name("web"))}
				if chance(r, 2) {
					groups = []uuid.UUID{id(name("db"))}
				}
			}
			vm := name("vm%d%d", b+1, i+1)
			addr := netip.AddrFrom4([4]byte{10, byte(t), byte(b + 1), byte(10 + i)})
			n.vm(r, vm, bridge, addr, netip.AddrFrom4([4]byte{10, byte(t), byte(b + 1), 1}), groups, secured)
			if chance(r, 3) {
				n.add(&model.FloatingIP{Meta: meta(vm + "-fip"), PortID: id(name("ext")), FixedAddress: addr,
					Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + 20*t + 5*b + i)})})
			}
		}
	}
}

// link joins a bridge and a router, whose port has the name and an address.
func (n *network) link(name, bridge, router string, addr netip.Prefix, masquerade bool) {
	n.add(&model.Port{Meta: meta(name + "-up"), BridgeID: id(bridge), AdminStateUp: true},
		&model.Port{Meta: meta(name), RouterID: id(router), PeerID: id(name + "-up"), AdminStateUp: true, Addresses: []netip.Prefix{addr}, Masquerade: masquerade})
}

// vm adds a VM with its port and binding. Some ports do not say what is behind them: it is learnt.
func (n *network) vm(r *rand.Rand, name, bridge string, addr, gateway netip.Addr, groups []uuid.UUID, secured bool) {
	a := addr.As4()
	p := vmPlan{name: name, bridge: bridge, host: pick(r, n.hosts), mac: match.MAC{2, 0, a[0], a[1], a[2], a[3]}, addr: addr, prefix: netip.PrefixFrom(addr, 24), gateway: gateway}
	port := &model.Port{Meta: meta(name), BridgeID: id(bridge), AdminStateUp: true, MAC: p.mac, Addresses: []netip.Prefix{single(addr)}}
	switch {
	case secured:
		port.PortSecurity, port.SecurityGroups = true, groups
	case chance(r, 4):
		port.MAC, port.Addresses = match.MAC{}, nil
	}
	if gateway.IsValid() && chance(r, 6) {
		port.InboundFilterID = id(fmt.Sprintf("t%d-chain", a[1]))
	}
	n.vms = append(n.vms, p)
	n.add(port, &model.Binding{Meta: model.Meta{ID: port.ID}, PortID: port.ID, HostID: id(p.host), Interface: "tap-" + name})
}
