package wire

import (
	"strconv"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// FromModel converts an object of any kind.
func FromModel(o model.Object) Object {
	m := o.GetMeta()
	meta := Meta{ID: m.ID.String(), Name: m.Name, Tenant: m.Tenant, Shared: m.Shared, Revision: m.Revision}
	switch o := o.(type) {
	case *model.Bridge:
		return &Bridge{Meta: meta, AdminStateUp: &o.AdminStateUp, PreForwardingID: idText(o.PreForwardingID), PostForwardingID: idText(o.PostForwardingID)}
	case *model.Router:
		return &Router{Meta: meta, AdminStateUp: &o.AdminStateUp, PreRoutingID: idText(o.PreRoutingID), PostRoutingID: idText(o.PostRoutingID)}
	case *model.Port:
		p := &Port{
			Meta: meta, AdminStateUp: &o.AdminStateUp,
			BridgeID: idText(o.BridgeID), RouterID: idText(o.RouterID), PeerID: idText(o.PeerID),
			InboundFilterID: idText(o.InboundFilterID), OutboundFilterID: idText(o.OutboundFilterID), PortGroups: idTexts(o.PortGroups),
		}
		if o.MAC != (match.MAC{}) {
			p.MAC = o.MAC.String()
		}
		if o.Masquerade {
			p.Masquerade = &o.Masquerade
		}
		p.PortSecurity, p.TunnelKey, p.VLAN, p.QoSPolicyID = o.PortSecurity, o.TunnelKey, int(o.VLAN), idText(o.QoSPolicyID)
		if o.SecurityGroups != nil {
			p.SecurityGroups = append([]string{}, idTexts(o.SecurityGroups)...)
		}
		for _, a := range o.AllowedAddressPairs {
			w := AddressPair{Address: subnetText(a.Address)}
			if a.MAC != (match.MAC{}) {
				w.MAC = a.MAC.String()
			}
			p.AllowedAddressPairs = append(p.AllowedAddressPairs, w)
		}
		for _, a := range o.Addresses {
			p.Addresses = append(p.Addresses, a.String())
		}
		return p
	case *model.Route:
		r := &Route{
			Meta: meta, RouterID: idText(o.RouterID), Destination: o.Destination.String(),
			NextHop: string(o.NextHop), PortID: idText(o.PortID),
		}
		if o.Weight != 0 { // not yet given its default
			r.Weight = &o.Weight
		}
		if o.Source.IsValid() {
			r.Source = o.Source.String()
		}
		if o.Gateway.IsValid() {
			r.Gateway = o.Gateway.String()
		}
		return r
	case *model.Host:
		h := &Host{Meta: meta}
		for _, t := range o.Tunnels {
			h.Tunnels = append(h.Tunnels, TunnelEnd{ZoneID: idText(t.ZoneID), Address: t.Address.String()})
		}
		return h
	case *model.TunnelZone:
		return &TunnelZone{Meta: meta}
	case *model.Binding:
		return &Binding{Meta: meta, PortID: idText(o.PortID), HostID: idText(o.HostID), Interface: o.Interface, FromID: idText(o.FromID)}
	case *model.FloatingIP:
		return &FloatingIP{Meta: meta, PortID: idText(o.PortID), Address: o.Address.String(), FixedAddress: o.FixedAddress.String()}
	case *model.Chain:
		return &Chain{Meta: meta}
	case *model.PortGroup:
		return &PortGroup{Meta: meta, Stateful: o.Stateful}
	case *model.AddressGroup:
		g := &AddressGroup{Meta: meta}
		for _, a := range o.Addresses {
			g.Addresses = append(g.Addresses, subnetText(a))
		}
		return g
	case *model.Rule:
		return fromRule(o, meta)
	case *model.QoSPolicy:
		return fromQoSPolicy(o, meta)
	case *model.Mirror:
		return fromMirror(o, meta)
	case *model.SecurityGroup:
		return &SecurityGroup{Meta: meta, Stateful: &o.Stateful}
	case *model.SecurityGroupRule:
		return FromSecurityGroupRule(o, meta)
	case *model.Subnet:
		return fromSubnet(o, meta)
	}
	return fromBalancer(o, meta)
}

func idText(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}

// Model implements Object.
func (b *Bridge) Model() (model.Object, error) {
	var p parser
	return p.done(&model.Bridge{
		Meta: p.meta(b.Meta), AdminStateUp: orTrue(b.AdminStateUp),
		PreForwardingID: p.id("pre_forwarding_id", b.PreForwardingID), PostForwardingID: p.id("post_forwarding_id", b.PostForwardingID),
	})
}

// Model implements Object.
func (r *Router) Model() (model.Object, error) {
	var p parser
	return p.done(&model.Router{
		Meta: p.meta(r.Meta), AdminStateUp: orTrue(r.AdminStateUp),
		PreRoutingID: p.id("pre_routing_id", r.PreRoutingID), PostRoutingID: p.id("post_routing_id", r.PostRoutingID),
	})
}

// Model implements Object.
func (w *Port) Model() (model.Object, error) {
	var p parser
	o := &model.Port{
		Meta: p.meta(w.Meta), AdminStateUp: orTrue(w.AdminStateUp),
		BridgeID: p.id("bridge_id", w.BridgeID), RouterID: p.id("router_id", w.RouterID), PeerID: p.id("peer_id", w.PeerID),
		InboundFilterID: p.id("inbound_filter_id", w.InboundFilterID), OutboundFilterID: p.id("outbound_filter_id", w.OutboundFilterID),
		PortGroups: p.ids("port_groups", w.PortGroups), PortSecurity: w.PortSecurity, TunnelKey: w.TunnelKey, VLAN: p.vlan("vlan", w.VLAN),
		QoSPolicyID: p.id("qos_policy_id", w.QoSPolicyID),
	}
	o.Masquerade = w.Masquerade != nil && *w.Masquerade
	if w.SecurityGroups != nil {
		o.SecurityGroups = append([]uuid.UUID{}, p.ids("security_groups", w.SecurityGroups)...)
	}
	if w.MAC != "" {
		o.MAC = p.mac("mac", w.MAC)
	}
	for i, a := range w.AllowedAddressPairs {
		at := index("allowed_address_pairs", i)
		pair := model.AddressPair{Address: p.subnet(at+".address", a.Address)}
		if a.MAC != "" {
			pair.MAC = p.mac(at+".mac", a.MAC)
		}
		o.AllowedAddressPairs = append(o.AllowedAddressPairs, pair)
	}
	for i, a := range w.Addresses {
		o.Addresses = append(o.Addresses, p.address(index("addresses", i), a, w.BridgeID != ""))
	}
	return p.done(o)
}

// Model implements Object.
func (w *Route) Model() (model.Object, error) {
	var p parser
	o := &model.Route{
		Meta: p.meta(w.Meta), RouterID: p.id("router_id", w.RouterID),
		Destination: p.prefix("destination", w.Destination),
		NextHop:     model.NextHop(w.NextHop), PortID: p.id("port_id", w.PortID), Weight: model.DefaultWeight,
	}
	if o.NextHop == "" {
		o.NextHop = model.NextHopPort
	}
	if w.Source != "" {
		o.Source = p.prefix("source", w.Source)
	}
	if w.Gateway != "" {
		o.Gateway = p.ip("gateway", w.Gateway)
	}
	if w.Weight != nil {
		o.Weight = *w.Weight
		if o.Weight < 1 {
			p.fail("weight", strconv.Itoa(o.Weight), "is less than 1")
		}
	}
	return p.done(o)
}

// Model implements Object.
func (w *Host) Model() (model.Object, error) {
	var p parser
	o := &model.Host{Meta: p.meta(w.Meta)}
	for i, t := range w.Tunnels {
		at := index("tunnels", i)
		o.Tunnels = append(o.Tunnels, model.TunnelEnd{ZoneID: p.id(at+".zone_id", t.ZoneID), Address: p.ip(at+".address", t.Address)})
	}
	return p.done(o)
}

// Model implements Object.
func (w *TunnelZone) Model() (model.Object, error) {
	var p parser
	return p.done(&model.TunnelZone{Meta: p.meta(w.Meta)})
}

// Model implements Object.
func (w *Binding) Model() (model.Object, error) {
	var p parser
	o := &model.Binding{
		Meta: p.meta(w.Meta), PortID: p.id("port_id", w.PortID), HostID: p.id("host_id", w.HostID), Interface: w.Interface,
		FromID: p.id("from_id", w.FromID),
	}
	if o.ID == uuid.Nil {
		o.ID = o.PortID
	}
	if o.ID != o.PortID {
		p.fail("id", w.ID, "is not the port's id: leave it out")
	}
	return p.done(o)
}

// Model implements Object.
func (w *FloatingIP) Model() (model.Object, error) {
	var p parser
	return p.done(&model.FloatingIP{
		Meta: p.meta(w.Meta), PortID: p.id("port_id", w.PortID),
		Address: p.ip("address", w.Address), FixedAddress: p.ip("fixed_address", w.FixedAddress),
	})
}

func orTrue(b *bool) bool { return b == nil || *b }
