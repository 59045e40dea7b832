package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// FragmentID is the identification that the fragments of a datagram have in common (RFC 791 section 3.2: 16 bits;
// RFC 8200 section 4.5: 32); 0 for what is no fragment.
func (v *View) FragmentID() uint32 {
	switch h := v.Packet(); {
	case v.Key.Frag == match.FragNone:
	case v.Is4() && len(h) >= IPv4Len:
		return uint32(be16(h[4:]))
	case v.Is6() && len(h) >= IPv6Len:
		for next, at, n := h[6], IPv6Len, 0; isExt(next) && n < maxExtHeaders && len(h) >= at+8; n++ {
			e := h[at:]
			switch next {
			case extFragment:
				return be32(e[4:])
			case extAH:
				at += (int(e[1]) + 2) * 4
			default:
				at += (int(e[1]) + 1) * 8
			}
			next = e[0]
		}
	}
	return 0
}
