package attach

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// interfaceBits is the length of an IPv6 interface identifier (RFC 4291 section 2.5.1).
const interfaceBits = 64

// free picks an address of the subnet for the port. Of an IPv6 subnet with room for it, it is the one that the host would form from its
// MAC. Otherwise it is the first that is free from a place on that the port's name decides, so that hosts that choose
// at the same time seldom choose the same.
func free(s *model.Subnet, p *model.Port, taken func(netip.Addr) bool) (netip.Addr, error) {
	prefix := s.CIDR.Masked()
	hostBits := prefix.Addr().BitLen() - prefix.Bits()
	if prefix.Addr().Is6() && hostBits >= interfaceBits {
		if a := eui64(prefix, p.MAC); a != s.Gateway && !taken(a) {
			return a, nil
		}
	}
	size := uint64(1) << min(hostBits, 62)
	h := fnv.New64a()
	h.Write([]byte(p.Name))
	start := h.Sum64() % size
	const tries = 1 << 20 // a bigger subnet that is so full is none to look on in
	for i := range min(size, tries) {
		a := plus(prefix.Addr(), (start+i)%size)
		if usable(prefix, a) && a != s.Gateway && !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("subnet %s (%s): no address is free: %w", model.RefTo(s), prefix, store.ErrConflict)
}

// usable leaves out the subnet's own address, and of IPv4 the broadcast address; a /31 has neither (RFC 3021), a /127 (RFC 6164) no own one.
func usable(p netip.Prefix, a netip.Addr) bool {
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return true
	}
	if a == p.Addr() {
		return false
	}
	return a.Is6() || p.Contains(a.Next())
}

// plus is the address n after a.
func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	for i := 15; n > 0 && i >= 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	out := netip.AddrFrom16(b)
	if a.Is4() {
		return out.Unmap()
	}
	return out
}

// eui64 is RFC 4291 appendix A.
func eui64(p netip.Prefix, m match.MAC) netip.Addr {
	b := p.Addr().As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b)
}

// known reports whether the snapshot knows who has the address.
func known(snap *view.Snapshot, bridge uuid.UUID, a netip.Addr) bool {
	b := snap.Bridge(bridge)
	if b == nil {
		return false
	}
	_, ok := b.Neighbours[view.LinkAddr{Addr: match.AddrFrom(a)}]
	return ok
}
