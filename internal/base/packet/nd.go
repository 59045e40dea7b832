package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// Flags of a neighbour advertisement (RFC 4861 section 4.4), as in ND.Flags.
const (
	NDRouter    uint8 = 0x80
	NDSolicited uint8 = 0x40
	NDOverride  uint8 = 0x20
)

const (
	ndHopLimit   = 255 // RFC 4861 section 7.1: proves that no router forwarded it
	ndLen        = 24  // solicitation or advertisement without options
	optSourceLLA = 1
	optTargetLLA = 2
	llaOptLen    = 8
)

// ND is a neighbour solicitation or advertisement (RFC 4861).
type ND struct {
	Advert bool  // advertisement; else solicitation
	Flags  uint8 // of an advertisement
	Target match.Addr
	// LLA is the source's (solicitation) or target's (advertisement) link-layer
	// address option; HasLLA says whether it is there.
	LLA    match.MAC
	HasLLA bool
}

// ND reads a neighbour solicitation or advertisement; false when the frame is none or must be
// discarded by RFC 4861 sections 7.1.1 and 7.1.2 (hop limit, code, length, target,
// options). The checksum is ChecksumState's to judge.
func (v *View) ND() (n ND, ok bool) {
	m, ok := v.ICMP()
	if !ok || !v.Is6() || m.Type != ICMPv6NeighbourSol && m.Type != ICMPv6NeighbourAdv {
		return n, false
	}
	b := v.Transport()
	if v.TTL != ndHopLimit || m.Code != 0 || len(b) < ndLen {
		return n, false
	}
	n.Target = match.Addr(b[8:24])
	if isGroup(n.Target) {
		return n, false
	}
	opt := byte(optSourceLLA)
	if m.Type == ICMPv6NeighbourAdv {
		n.Advert, n.Flags, opt = true, b[4], optTargetLLA
		if isGroup(v.Key.Dst) && n.Flags&NDSolicited != 0 {
			return n, false
		}
	}
	for b = b[ndLen:]; len(b) > 0; b = b[int(b[1])*8:] {
		if len(b) < 8 || b[1] == 0 || len(b) < int(b[1])*8 {
			return n, false
		}
		if b[0] == opt && b[1] == 1 {
			n.LLA, n.HasLLA = match.MAC(b[2:8]), true
		}
	}
	if !n.Advert && v.Key.Src == (match.Addr{}) && n.HasLLA {
		return n, false
	}
	return n, true
}

// SolicitedNode is the solicited-node multicast address of a (RFC 4291 section 2.7.1)
// and the Ethernet group it maps to (RFC 2464 section 7).
func SolicitedNode(a match.Addr) (match.Addr, match.MAC) {
	return match.Addr{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]},
		match.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]}
}

// BuildNeighbourSolicitation appends a multicast solicitation for target by (mac, addr). The
// zero addr (::) makes it duplicate address detection, without the option.
func BuildNeighbourSolicitation(dst []byte, mac match.MAC, addr, target match.Addr) []byte {
	group, groupMAC := SolicitedNode(target)
	n := ND{Target: target, LLA: mac, HasLLA: addr != match.Addr{}}
	return BuildND(dst, Ether{Dst: groupMAC, Src: mac}, addr, group, n)
}

// BuildNeighbourAdvertisement appends the answer of mac to a solicitation: solicited, or to
// all nodes when the asker has no address yet (RFC 4861 section 7.2.4). flags may hold
// NDRouter and NDOverride. It appends nothing when request is no solicitation.
func BuildNeighbourAdvertisement(dst []byte, request *View, mac match.MAC, flags uint8) []byte {
	q, ok := request.ND()
	if !ok || q.Advert {
		return dst
	}
	eth := Ether{Dst: request.Key.EthSrc, Src: mac, VLAN: request.Key.VLAN}
	to := request.Key.Src
	if to == (match.Addr{}) {
		to, eth.Dst = allNodes, allNodesMAC
	} else {
		flags |= NDSolicited
	}
	return BuildND(dst, eth, q.Target, to, ND{Advert: true, Flags: flags, Target: q.Target, LLA: mac, HasLLA: true})
}

// BuildUnsolicitedAdvertisement appends an advertisement of (mac, addr) to all
// nodes (RFC 4861 section 7.2.6). flags may hold NDRouter and NDOverride.
func BuildUnsolicitedAdvertisement(dst []byte, mac match.MAC, addr match.Addr, flags uint8) []byte {
	return BuildND(dst, Ether{Dst: allNodesMAC, Src: mac}, addr, allNodes,
		ND{Advert: true, Flags: flags, Target: addr, LLA: mac, HasLLA: true})
}

var (
	allNodes    = match.Addr{0: 0xff, 1: 2, 15: 1}
	allNodesMAC = match.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// BuildND appends a solicitation or advertisement with the addresses given.
func BuildND(dst []byte, eth Ether, src, to match.Addr, n ND) []byte {
	m := ICMP{Type: ICMPv6NeighbourSol}
	opt := byte(optSourceLLA)
	if n.Advert {
		m.Type, m.Rest, opt = ICMPv6NeighbourAdv, uint32(n.Flags)<<24, optTargetLLA
	}
	var body [ndLen - ICMPLen + llaOptLen]byte
	p := append(body[:0], n.Target[:]...)
	if n.HasLLA {
		p = append(p, opt, 1)
		p = append(p, n.LLA[:]...)
	}
	return BuildICMP(dst, eth, IP{Src: src, Dst: to, TTL: ndHopLimit}, m, p)
}
