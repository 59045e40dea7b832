package model

import (
	"fmt"
	"net/netip"

	"github.com/google/uuid"
)

func (g *Graph) validateFloatingIP(f *FloatingIP) error {
	if err := g.exists(f, "port", KindPort, f.PortID); err != nil {
		return err
	}
	p := g.Get(KindPort, f.PortID).(*Port)
	if p.RouterID == uuid.Nil {
		return fieldErr(f, "port", fmt.Sprintf("%s is not of a router", RefTo(p)))
	}
	for _, a := range []struct {
		field string
		addr  netip.Addr
	}{{"address", f.Address}, {"fixed_address", f.FixedAddress}} {
		reason := badUnicast(a.addr)
		if reason == "" && a.addr.IsLinkLocalUnicast() {
			reason = fmt.Sprintf("%s is a link-local address", a.addr)
		}
		if reason != "" {
			return fieldErr(f, a.field, reason)
		}
		if owns(p, a.addr) {
			return fieldErr(f, a.field, fmt.Sprintf("%s is the own address of %s", a.addr, RefTo(p)))
		}
	}
	for l := range g.ReferrersOf(Key{KindRouter, p.RouterID}, KindLoadBalancer) {
		if l.(*LoadBalancer).Address == f.Address {
			return fieldErr(f, "address", fmt.Sprintf("%s is already that of %s at the same router", f.Address, RefTo(l)))
		}
	}
	switch {
	case f.Address.Is4() != f.FixedAddress.Is4():
		return fieldErr(f, "fixed_address", fmt.Sprintf("%s is not of the family of %s", f.FixedAddress, f.Address))
	case f.Address == f.FixedAddress:
		return fieldErr(f, "fixed_address", "is the floating address itself")
	}
	return nil
}
