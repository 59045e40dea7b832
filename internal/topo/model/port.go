package model

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

func (g *Graph) validatePort(p *Port) error {
	onBridge, onRouter := p.BridgeID != uuid.Nil, p.RouterID != uuid.Nil
	switch {
	case onBridge && onRouter:
		return fieldErr(p, "router", "a port is of a bridge or of a router, not of both")
	case onRouter:
		if err := g.exists(p, "router", KindRouter, p.RouterID); err != nil {
			return err
		}
	case onBridge:
		if err := g.exists(p, "bridge", KindBridge, p.BridgeID); err != nil {
			return err
		}
	default:
		return fieldErr(p, "bridge", "a port is of a bridge or of a router")
	}
	if err := g.validatePeer(p); err != nil {
		return err
	}
	if p.MAC.IsMulticast() {
		return fieldErr(p, "mac", fmt.Sprintf("%s is a multicast address", p.MAC))
	}
	if len(p.Addresses) > MaxAddresses {
		return fieldErr(p, "addresses", fmt.Sprintf("%d are more than %d", len(p.Addresses), MaxAddresses))
	}
	for i, a := range p.Addresses {
		if reason := badPortAddress(p, i, a); reason != "" {
			return fieldErr(p, fmt.Sprintf("addresses[%d]", i), reason)
		}
	}
	if p.Masquerade && !(onRouter && slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() })) {
		return fieldErr(p, "masquerade", "needs a router port with an IPv4 address")
	}
	if err := g.validateFilters(p, filterRef{"inbound_filter", p.InboundFilterID}, filterRef{"outbound_filter", p.OutboundFilterID}); err != nil {
		return err
	}
	for i, id := range p.PortGroups {
		field := fmt.Sprintf("port_groups[%d]", i)
		if slices.Index(p.PortGroups, id) < i {
			return fieldErr(p, field, fmt.Sprintf("port group %s is there twice", id))
		}
		if err := g.exists(p, field, KindPortGroup, id); err != nil {
			return err
		}
	}
	if p.VLAN != 0 {
		if reason := badVLAN(p.VLAN); reason != "" {
			return fieldErr(p, "vlan", reason)
		}
		if onRouter {
			return fieldErr(p, "vlan", "is for ports of bridges")
		}
	}
	if err := validateSecurity(p); err != nil {
		return err
	}
	if err := g.validateQoS(p); err != nil {
		return err
	}
	if err := g.validatePortGroups(p); err != nil {
		return err
	}
	if onRouter {
		return g.validateSubnets(p)
	}
	return nil
}

func validateSecurity(p *Port) error {
	switch {
	case p.PortSecurity && p.BridgeID == uuid.Nil:
		return fieldErr(p, "port_security", "is for ports of bridges")
	case p.PortSecurity && p.MAC == match.MAC{}:
		return fieldErr(p, "port_security", "needs mac: what else may the VM send from")
	case !p.PortSecurity && len(p.AllowedAddressPairs) > 0:
		return fieldErr(p, "allowed_address_pairs", "have no meaning without port_security")
	case len(p.AllowedAddressPairs) > MaxAddresses:
		return fieldErr(p, "allowed_address_pairs", fmt.Sprintf("%d are more than %d", len(p.AllowedAddressPairs), MaxAddresses))
	}
	for i, a := range p.AllowedAddressPairs {
		field := fmt.Sprintf("allowed_address_pairs[%d]", i)
		if a.MAC.IsMulticast() {
			return fieldErr(p, field+".mac", fmt.Sprintf("%s is a multicast address", a.MAC))
		}
		if reason := badNetwork(a.Address); reason != "" {
			return fieldErr(p, field+".address", reason)
		}
		if slices.Index(p.AllowedAddressPairs, a) < i {
			return fieldErr(p, field, "is there twice")
		}
	}
	return nil
}

func (g *Graph) validatePeer(p *Port) error {
	if p.PeerID == uuid.Nil {
		return nil
	}
	if p.PeerID == p.ID {
		return fieldErr(p, "peer", "is the port itself")
	}
	peer, ok := g.Get(KindPort, p.PeerID).(*Port)
	switch {
	case !ok:
		return fieldErr(p, "peer", fmt.Sprintf("no port %s", p.PeerID))
	case peer.PeerID != p.ID:
		return fieldErr(p, "peer", fmt.Sprintf("%s does not name this port in return", RefTo(peer)))
	case peer.BridgeID == p.BridgeID && peer.RouterID == p.RouterID:
		return fieldErr(p, "peer", fmt.Sprintf("%s is of the same device", RefTo(peer)))
	}
	for _, id := range []uuid.UUID{p.ID, peer.ID} {
		if b := g.Get(KindBinding, id); b != nil {
			return fieldErr(p, "peer", fmt.Sprintf("port %s is bound to interface %s", id, b.(*Binding).Interface))
		}
	}
	if p.RouterID != uuid.Nil && peer.RouterID != uuid.Nil {
		if peer.MAC == p.MAC {
			return fieldErr(p, "mac", fmt.Sprintf("%s is also that of the peer", p.MAC))
		}
		for i, a := range p.Addresses {
			if owns(peer, a.Addr()) {
				return fieldErr(p, fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("%s is also that of the peer", a.Addr()))
			}
		}
	}
	return nil
}

func owns(p *Port, a netip.Addr) bool {
	return slices.ContainsFunc(p.Addresses, func(x netip.Prefix) bool { return x.Addr() == a })
}

func badPortAddress(p *Port, i int, a netip.Prefix) string {
	if !a.IsValid() {
		return "is not an address with a prefix length"
	}
	if reason := badUnicast(a.Addr()); reason != "" {
		return reason
	}
	if j := slices.IndexFunc(p.Addresses, func(x netip.Prefix) bool { return x.Addr() == a.Addr() }); j < i {
		return fmt.Sprintf("%s is there twice", a.Addr())
	}
	if p.BridgeID != uuid.Nil {
		if !a.IsSingleIP() {
			return fmt.Sprintf("%s: a bridge port's addresses have the full length, /%d", a, a.Addr().BitLen())
		}
		return ""
	}
	if a.Bits() == 0 {
		return fmt.Sprintf("%s: a subnet of length 0", a)
	}
	if a.Addr().Is4() && a.Bits() < 31 { // RFC 3021: both addresses of a /31 are hosts
		if a.Addr() == a.Masked().Addr() {
			return fmt.Sprintf("%s is the address of the subnet itself", a)
		}
		if a.Addr() == lastAddr(a) {
			return fmt.Sprintf("%s is the broadcast address of its subnet", a)
		}
	}
	return ""
}

// validateSubnets refuses a subnet that overlaps one of another port of the router: the router
// could not tell on which link an address is. Link-local subnets are on every link.
func (g *Graph) validateSubnets(p *Port) error {
	for from := range g.referrersOf(Key{KindRouter, p.RouterID}) {
		other, ok := g.Get(from.Kind, from.ID).(*Port)
		if !ok || other.ID == p.ID {
			continue
		}
		for i, a := range p.Addresses {
			for _, b := range other.Addresses {
				if a.Overlaps(b) && !(a.Addr().Is6() && a.Addr().IsLinkLocalUnicast()) {
					return fieldErr(p, fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("%s overlaps %s of %s", a, b, RefTo(other)))
				}
			}
		}
	}
	return nil
}
