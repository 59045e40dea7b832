package view

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Prefix is a set of addresses in the flow key's form, in which IPv4 is mapped.
type Prefix struct {
	addr, mask [2]uint64
	six        bool // short IPv6 prefixes cover the mapped addresses, which are not theirs
}

// newPrefix converts a prefix of either family; an invalid one becomes the zero Prefix.
func newPrefix(p netip.Prefix) Prefix {
	if !p.IsValid() {
		return Prefix{}
	}
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	a := match.AddrFrom(p.Addr())
	r := Prefix{addr: halves(&a), six: p.Addr().Is6()}
	r.mask[0] = ^uint64(0) << (64 - min(n, 64))
	if n > 64 {
		r.mask[1] = ^uint64(0) << (128 - n)
	}
	return r
}

func halves(a *match.Addr) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// Contains reports whether a is in the set.
func (p *Prefix) Contains(a *match.Addr) bool {
	if p.six && a.Is4() {
		return false
	}
	h := halves(a)
	return (h[0]^p.addr[0])&p.mask[0]|(h[1]^p.addr[1])&p.mask[1] == 0
}

// String is the prefix in the notation of its family.
func (p Prefix) String() string {
	var a match.Addr
	binary.BigEndian.PutUint64(a[:8], p.addr[0])
	binary.BigEndian.PutUint64(a[8:], p.addr[1])
	n := bits.OnesCount64(p.mask[0]) + bits.OnesCount64(p.mask[1])
	if !p.six {
		n -= 96
	}
	return netip.PrefixFrom(a.Netip(), n).String()
}
