// Package wire is the form in which objects are kept, in the store and on disk.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// What is kept under <prefix><kind>/<id>, as JSON that people can read with etcdctl. Names
// and meanings may be added, never changed: agents of two versions share a store.

type wireBridge struct {
	ID           uuid.UUID `json:"id"`
	Name         string    `json:"name,omitempty"`
	AdminStateUp bool      `json:"admin_state_up"`

	Pre  *uuid.UUID `json:"pre_filter,omitempty"`
	Post *uuid.UUID `json:"post_filter,omitempty"`
}

type wireRouter wireBridge

type wirePort struct {
	ID           uuid.UUID      `json:"id"`
	Name         string         `json:"name,omitempty"`
	Bridge       *uuid.UUID     `json:"bridge,omitempty"`
	Router       *uuid.UUID     `json:"router,omitempty"`
	Peer         *uuid.UUID     `json:"peer,omitempty"`
	AdminStateUp bool           `json:"admin_state_up"`
	MAC          string         `json:"mac,omitempty"`
	Addresses    []netip.Prefix `json:"addresses,omitempty"`
	Masquerade   bool           `json:"masquerade,omitempty"`
	Inbound      *uuid.UUID     `json:"inbound_filter,omitempty"`
	Outbound     *uuid.UUID     `json:"outbound_filter,omitempty"`
	PortGroups   []uuid.UUID    `json:"port_groups,omitempty"`
	Security     bool           `json:"port_security,omitempty"`
	Pairs        []wirePair     `json:"allowed_address_pairs,omitempty"`
	TunnelKey    uint32         `json:"tunnel_key,omitempty"`
	Groups       []uuid.UUID    `json:"security_groups,omitzero"` // none is not the same as an empty list
	VLAN         uint16         `json:"vlan,omitempty"`
	QoS          *uuid.UUID     `json:"qos_policy,omitempty"`
}

type wireRoute struct {
	ID          uuid.UUID     `json:"id"`
	Name        string        `json:"name,omitempty"`
	Router      uuid.UUID     `json:"router"`
	Destination netip.Prefix  `json:"destination"`
	Source      *netip.Prefix `json:"source,omitempty"`
	NextHop     model.NextHop `json:"next_hop"`
	Port        *uuid.UUID    `json:"port,omitempty"`
	Gateway     *netip.Addr   `json:"gateway,omitempty"`
	Weight      int           `json:"weight"`
}

// wireNamed is a kind of which only the name is to be kept.
type wireNamed struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name,omitempty"`
}

type wireHost struct {
	ID      uuid.UUID       `json:"id"`
	Name    string          `json:"name,omitempty"`
	Tunnels []wireTunnelEnd `json:"tunnels,omitempty"`
}

type wireTunnelEnd struct {
	Zone    uuid.UUID  `json:"zone"`
	Address netip.Addr `json:"address"`
}

type wireBinding struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name,omitempty"`
	Port      uuid.UUID `json:"port"`
	Host      uuid.UUID `json:"host"`
	Interface string    `json:"interface"`

	From *uuid.UUID `json:"from,omitempty"`
}

type wireFloatingIP struct {
	ID           uuid.UUID  `json:"id"`
	Name         string     `json:"name,omitempty"`
	Port         uuid.UUID  `json:"port"`
	Address      netip.Addr `json:"address"`
	FixedAddress netip.Addr `json:"fixed_address"`
}

type wireSubnet struct {
	ID              uuid.UUID         `json:"id"`
	Name            string            `json:"name,omitempty"`
	Bridge          uuid.UUID         `json:"bridge"`
	VLAN            uint16            `json:"vlan,omitempty"`
	CIDR            netip.Prefix      `json:"cidr"`
	Gateway         *netip.Addr       `json:"gateway,omitempty"`
	EnableDHCP      bool              `json:"enable_dhcp"`
	DNSServers      []netip.Addr      `json:"dns_servers,omitempty"`
	Domain          string            `json:"domain,omitempty"`
	MTU             int               `json:"mtu"`
	LeaseTime       int               `json:"lease_time"`
	HostRoutes      []wireHostRoute   `json:"host_routes,omitempty"`
	ExtraOptions    []wireExtraOption `json:"extra_options,omitempty"`
	IPv6RAMode      model.IPv6Mode    `json:"ipv6_ra_mode,omitempty"`
	IPv6AddressMode model.IPv6Mode    `json:"ipv6_address_mode,omitempty"`
}

type wireHostRoute struct {
	Destination netip.Prefix `json:"destination"`
	NextHop     netip.Addr   `json:"next_hop"`
}

type wireExtraOption struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// optional is nil for the zero value, so that JSON leaves it out.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// wireOwner is whose any object is, beside the fields of its kind.
type wireOwner struct {
	Tenant string `json:"tenant,omitempty"`
	Shared bool   `json:"shared,omitempty"`
}

// Encode is the JSON of an object.
func Encode(o model.Object) ([]byte, error) {
	b, err := encodeKind(o)
	m := o.GetMeta()
	owner := wireOwner{m.Tenant, m.Shared}
	if err != nil || owner == (wireOwner{}) {
		return b, err
	}
	w, err := json.Marshal(owner)
	// An object always has an id: both sides of the comma have fields.
	return append(append(b[:len(b)-1], ','), w[1:]...), err
}

func encodeKind(o model.Object) ([]byte, error) {
	switch o := o.(type) {
	case *model.Bridge:
		return json.Marshal(wireBridge{o.ID, o.Name, o.AdminStateUp, optional(o.PreForwardingID), optional(o.PostForwardingID)})
	case *model.Router:
		return json.Marshal(wireRouter{o.ID, o.Name, o.AdminStateUp, optional(o.PreRoutingID), optional(o.PostRoutingID)})
	case *model.Port:
		w := wirePort{ID: o.ID, Name: o.Name, Bridge: optional(o.BridgeID), Router: optional(o.RouterID), Peer: optional(o.PeerID),
			AdminStateUp: o.AdminStateUp, Addresses: o.Addresses, Masquerade: o.Masquerade,
			Inbound: optional(o.InboundFilterID), Outbound: optional(o.OutboundFilterID), PortGroups: o.PortGroups}
		if o.MAC != (match.MAC{}) {
			w.MAC = o.MAC.String()
		}
		w.Security, w.Pairs, w.Groups, w.TunnelKey, w.VLAN = o.PortSecurity, encodePairs(o.AllowedAddressPairs), o.SecurityGroups, o.TunnelKey, o.VLAN
		w.QoS = optional(o.QoSPolicyID)
		return json.Marshal(w)
	case *model.Route:
		return json.Marshal(wireRoute{ID: o.ID, Name: o.Name, Router: o.RouterID, Destination: o.Destination, Source: optional(o.Source),
			NextHop: o.NextHop, Port: optional(o.PortID), Gateway: optional(o.Gateway), Weight: o.Weight})
	case *model.Host:
		w := wireHost{ID: o.ID, Name: o.Name}
		for _, t := range o.Tunnels {
			w.Tunnels = append(w.Tunnels, wireTunnelEnd{t.ZoneID, t.Address})
		}
		return json.Marshal(w)
	case *model.TunnelZone:
		return json.Marshal(wireNamed{o.ID, o.Name})
	case *model.Binding:
		return json.Marshal(wireBinding{o.ID, o.Name, o.PortID, o.HostID, o.Interface, optional(o.FromID)})
	case *model.FloatingIP:
		return json.Marshal(wireFloatingIP{o.ID, o.Name, o.PortID, o.Address, o.FixedAddress})
	case *model.Subnet:
		return json.Marshal(encodeSubnet(o))
	}
	return encodeBalancer(o)
}

// Decode reads an object of the key's kind and id that was stored at rev.
func Decode(k model.Key, data []byte, rev int64) (model.Object, error) {
	o, err := decodeKind(k.Kind, data)
	if err != nil {
		return nil, err
	}
	m := o.GetMeta()
	if m.ID != k.ID {
		return nil, fmt.Errorf("the value is of another id, %s", m.ID)
	}
	m.Revision = rev
	owner, err := read[wireOwner](data)
	m.Tenant, m.Shared = owner.Tenant, owner.Shared
	return o, err
}

func decodeKind(kind model.Kind, data []byte) (model.Object, error) {
	meta := func(id uuid.UUID, name string) model.Meta { return model.Meta{ID: id, Name: name} }
	switch kind {
	case model.KindBridge:
		w, err := read[wireBridge](data)
		return &model.Bridge{Meta: meta(w.ID, w.Name), AdminStateUp: w.AdminStateUp,
			PreForwardingID: value(w.Pre), PostForwardingID: value(w.Post)}, err
	case model.KindRouter:
		w, err := read[wireRouter](data)
		return &model.Router{Meta: meta(w.ID, w.Name), AdminStateUp: w.AdminStateUp,
			PreRoutingID: value(w.Pre), PostRoutingID: value(w.Post)}, err
	case model.KindPort:
		w, err := read[wirePort](data)
		p := &model.Port{Meta: meta(w.ID, w.Name), BridgeID: value(w.Bridge), RouterID: value(w.Router), PeerID: value(w.Peer),
			AdminStateUp: w.AdminStateUp, Addresses: w.Addresses, Masquerade: w.Masquerade,
			InboundFilterID: value(w.Inbound), OutboundFilterID: value(w.Outbound), PortGroups: w.PortGroups, TunnelKey: w.TunnelKey}
		if err == nil && w.MAC != "" {
			p.MAC, err = parseMAC(w.MAC)
		}
		p.VLAN, p.QoSPolicyID = w.VLAN, value(w.QoS)
		if p.PortSecurity, p.SecurityGroups = w.Security, w.Groups; err == nil {
			p.AllowedAddressPairs, err = decodePairs(w.Pairs)
		}
		return p, err
	case model.KindRoute:
		w, err := read[wireRoute](data)
		return &model.Route{Meta: meta(w.ID, w.Name), RouterID: w.Router, Destination: w.Destination, Source: value(w.Source),
			NextHop: w.NextHop, PortID: value(w.Port), Gateway: value(w.Gateway), Weight: w.Weight}, err
	case model.KindHost:
		w, err := read[wireHost](data)
		h := &model.Host{Meta: meta(w.ID, w.Name)}
		for _, t := range w.Tunnels {
			h.Tunnels = append(h.Tunnels, model.TunnelEnd{ZoneID: t.Zone, Address: t.Address})
		}
		return h, err
	case model.KindZone:
		w, err := read[wireNamed](data)
		return &model.TunnelZone{Meta: meta(w.ID, w.Name)}, err
	case model.KindBinding:
		w, err := read[wireBinding](data)
		return &model.Binding{Meta: meta(w.ID, w.Name), PortID: w.Port, HostID: w.Host, Interface: w.Interface, FromID: value(w.From)}, err
	case model.KindFloatingIP:
		w, err := read[wireFloatingIP](data)
		return &model.FloatingIP{Meta: meta(w.ID, w.Name), PortID: w.Port, Address: w.Address, FixedAddress: w.FixedAddress}, err
	case model.KindSubnet:
		w, err := read[wireSubnet](data)
		return w.model(), err
	}
	return decodeBalancer(kind, data)
}

func read[T any](data []byte) (w T, err error) {
	err = json.Unmarshal(data, &w)
	return w, err
}

func parseMAC(s string) (match.MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return match.MAC{}, err
	}
	if len(hw) != 6 {
		return match.MAC{}, errors.New("not an Ethernet address: " + s)
	}
	return match.MAC(hw), nil
}
