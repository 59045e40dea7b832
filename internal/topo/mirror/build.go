package mirror

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// builder resolves objects into what simulations read. Each function gives nil when there is no
// such object. What refers to nothing, as data written by hand may, is left out.
type builder struct {
	graph  *model.Graph
	health *health.State
	self   uuid.UUID  // this host
	live   live.Hosts // of which others are alive
	part   *part      // what may be shown; nil: everything
}

// dead reports whether another host is known to be dead. This one is not, whatever the store says.
func (b builder) dead(host uuid.UUID) bool { return host != b.self && b.live.Dead(host) }

func get[T model.Object](g *model.Graph, id uuid.UUID) (T, bool) {
	var zero T
	o, ok := g.Get(zero.Kind(), id).(T)
	return o, ok
}

// plugged reports whether anything is at the other end of the port: a peer, or an interface of a host that lives.
func (b builder) plugged(p *model.Port) bool {
	bound, ok := get[*model.Binding](b.graph, p.ID)
	_, peered := get[*model.Port](b.graph, p.PeerID)
	return ok && !b.dead(bound.Owner()) || peered
}

func (b builder) port(id uuid.UUID) *view.Port {
	if !b.part.has(view.ThingPort, id) {
		return nil
	}
	p, ok := get[*model.Port](b.graph, id)
	if !ok {
		return b.healthPort(id)
	}
	v := &view.Port{
		ID: p.ID, Name: p.Name, Bridge: p.BridgeID, Router: p.RouterID, AdminUp: p.AdminStateUp,
		MAC: p.MAC, Addrs: slices.Clone(p.Addresses), TunnelKey: p.TunnelKey,
		Inbound: p.InboundFilterID, Outbound: p.OutboundFilterID, Groups: slices.Clone(p.PortGroups),
		Rules: b.translated(p.InboundFilterID, p.OutboundFilterID), VLAN: p.VLAN,
	}
	sortIDs(v.Groups)
	v.Siblings = b.siblings(p)
	v.Mirrors = b.mirrors(model.KeyOf(p))
	b.qos(v, p)
	if _, ok := get[*model.Port](b.graph, p.PeerID); ok {
		v.Peer = p.PeerID
	} else if x, ok := get[*model.Binding](b.graph, p.ID); ok {
		v.Host, v.Interface = x.Owner(), x.Interface
		if v.Host != x.HostID {
			v.MovesTo = x.HostID
		}
	}
	if p.PortSecurity {
		v.Sources, v.SecurityGroups = sources(p), b.securityGroups(p)
	}
	if p.RouterID != uuid.Nil {
		v.LinkLocal, v.MTU, v.Masquerade = linkLocal(p.MAC), b.linkMTU(p), p.Masquerade
		v.VIPs = b.vips(p)
	}
	for o := range b.graph.ReferrersOf(model.KeyOf(p), model.KindFloatingIP) {
		if v.Floating == nil {
			v.Floating, v.Fixed = make(map[match.Addr]match.Addr), make(map[match.Addr]match.Addr)
		}
		f := o.(*model.FloatingIP)
		floating, fixed := match.AddrFrom(f.Address), match.AddrFrom(f.FixedAddress)
		v.Floating[floating], v.Fixed[fixed] = fixed, floating
	}
	return v
}

// siblings are the other ports of a port's stateful groups.
func (b builder) siblings(p *model.Port) (ids []uuid.UUID) {
	for _, id := range p.PortGroups {
		if g, ok := get[*model.PortGroup](b.graph, id); !ok || !g.Stateful {
			continue
		}
		for o := range b.graph.ReferrersOf(model.Key{Kind: model.KindPortGroup, ID: id}, model.KindPort) {
			if q := o.GetMeta().ID; q != p.ID {
				ids = append(ids, q)
			}
		}
	}
	sortIDs(ids)
	return slices.Compact(ids)
}

func (b builder) hasFloating(p *model.Port) bool {
	for range b.graph.ReferrersOf(model.KeyOf(p), model.KindFloatingIP) {
		return true
	}
	return false
}

// sources lists what a secured port's VM may send from: each of its MAC addresses with that one's link-local address too.
func sources(p *model.Port) []view.Source {
	list := []view.Source{}
	seen := make(map[match.MAC]bool)
	add := func(mac match.MAC, a netip.Prefix) {
		if mac == (match.MAC{}) {
			mac = p.MAC
		}
		if !seen[mac] {
			seen[mac] = true
			list = append(list, view.NewSource(mac, netip.PrefixFrom(linkLocal(mac), 128)))
		}
		if a.IsValid() {
			list = append(list, view.NewSource(mac, a))
		}
	}
	add(p.MAC, netip.Prefix{})
	for _, a := range p.Addresses {
		add(p.MAC, a)
	}
	for _, a := range p.AllowedAddressPairs {
		add(a.MAC, a.Address)
	}
	return list
}

// linkLocal is fe80::/64 with the modified EUI-64 of a MAC (RFC 4291 appendix A).
func linkLocal(m match.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 0x02, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

func (b builder) bridge(id uuid.UUID) *view.Bridge {
	x, ok := get[*model.Bridge](b.graph, id)
	if !ok || !b.part.has(view.ThingBridge, id) {
		return nil
	}
	v := &view.Bridge{ID: id, Mirrors: b.mirrors(model.KeyOf(x)), Name: x.Name, AdminUp: x.AdminStateUp, Pre: x.PreForwardingID, Post: x.PostForwardingID,
		Rules: b.translated(x.PreForwardingID, x.PostForwardingID), MACs: make(map[view.LinkMAC]uuid.UUID), Neighbours: make(map[view.LinkAddr]match.MAC)}
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindPort) {
		p := o.(*model.Port)
		if p.AdminStateUp && b.plugged(p) {
			v.Ports = append(v.Ports, p.ID)
		}
		v.VLANAware = v.VLANAware || p.VLAN != 0
		// Also a port that is down keeps its place: frames for it are dropped there, not flooded elsewhere.
		seed(v, p, p)
		if peer, ok := get[*model.Port](b.graph, p.PeerID); ok && peer.RouterID != uuid.Nil {
			seed(v, p, peer)
			v.Neighbours[view.LinkAddr{Addr: match.AddrFrom(linkLocal(peer.MAC)), VLAN: p.VLAN}] = peer.MAC
		}
	}
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindSubnet) {
		v.Subnets = append(v.Subnets, subnet(o.(*model.Subnet)))
	}
	slices.SortFunc(v.Subnets, func(a, b view.Subnet) int { return slices.Compare(a.ID[:], b.ID[:]) })
	sortIDs(v.Ports)
	return v
}

// seed says that owner is to be found behind the bridge's port at.
func seed(v *view.Bridge, at, owner *model.Port) {
	if owner.MAC == (match.MAC{}) {
		return
	}
	v.MACs[view.LinkMAC{MAC: owner.MAC, VLAN: at.VLAN}] = at.ID
	for _, a := range owner.Addresses {
		v.Neighbours[view.LinkAddr{Addr: match.AddrFrom(a.Addr()), VLAN: at.VLAN}] = owner.MAC
	}
}

func (b builder) router(id uuid.UUID) (*view.Router, []view.Route) {
	x, ok := get[*model.Router](b.graph, id)
	if !ok || !b.part.has(view.ThingRouter, id) {
		return nil, nil
	}
	v := &view.Router{ID: id, Mirrors: b.mirrors(model.KeyOf(x)), Name: x.Name, AdminUp: x.AdminStateUp, Pre: x.PreRoutingID, Post: x.PostRoutingID,
		Rules: b.translated(x.PreRoutingID, x.PostRoutingID)}
	var rs []view.Route
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindPort) {
		p := o.(*model.Port)
		v.Ports = append(v.Ports, p.ID)
		if p.Masquerade || b.hasFloating(p) {
			v.NAT = append(v.NAT, p.ID)
		}
		rs = append(rs, b.ownRoutes(p)...)
	}
	for o := range b.graph.ReferrersOf(model.KeyOf(x), model.KindRoute) {
		if r, ok := b.route(o.(*model.Route)); ok {
			rs = append(rs, r)
		}
	}
	b.balancing(v)
	sortIDs(v.Ports)
	sortIDs(v.NAT)
	slices.SortFunc(rs, func(a, b view.Route) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), slices.Compare(a.Port[:], b.Port[:]),
			a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.NextHop, b.NextHop))
	})
	v.Table = view.NewRouteTable(rs)
	return v, rs
}

// ownRoutes are those that exist by themselves: a port's own addresses, which answer while the port is up,
// and the subnets on its link, which also needs another end. Their weight 0 goes before explicit routes.
func (b builder) ownRoutes(p *model.Port) []view.Route {
	if !p.AdminStateUp {
		return nil
	}
	var rs []view.Route
	plugged := b.plugged(p)
	for _, a := range p.Addresses {
		rs = append(rs, view.Route{Dst: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), NextHop: view.ToLocal, Port: p.ID})
		if plugged && !a.IsSingleIP() {
			rs = append(rs, view.Route{Dst: a.Masked(), NextHop: view.ToPort, Port: p.ID})
		}
	}
	return rs
}

// route resolves an explicit route; false while its port is down, so that others take over.
func (b builder) route(r *model.Route) (view.Route, bool) {
	v := view.Route{ID: r.ID, Dst: r.Destination, Src: r.Source, Weight: r.Weight}
	switch r.NextHop {
	case model.NextHopBlackhole:
		v.NextHop = view.Blackhole
	case model.NextHopReject:
		v.NextHop = view.Reject
	case model.NextHopPort:
		p, ok := get[*model.Port](b.graph, r.PortID)
		if !ok || !p.AdminStateUp || !b.plugged(p) {
			return v, false
		}
		v.NextHop, v.Port, v.Gateway = view.ToPort, r.PortID, r.Gateway
	default:
		return v, false
	}
	return v, true
}

func sortIDs(ids []uuid.UUID) {
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
}
