package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// ARP operations (RFC 826).
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// ARP is an Ethernet/IPv4 ARP message (RFC 826).
type ARP struct {
	Op  uint16
	SHA match.MAC  // sender's hardware address
	SPA match.Addr // sender's protocol address
	THA match.MAC  // target's hardware address
	TPA match.Addr // target's protocol address
}

var arpEthernetIPv4 = [6]byte{0, 1, 8, 0, 6, 4}

func (v *View) parseARP(off int) bool {
	h := v.Frame[off:]
	if len(h) < ARPLen {
		return false
	}
	if [6]byte(h) != arpEthernetIPv4 || h[6] != 0 {
		return true
	}
	v.L3 = off
	v.Key.Proto = h[7]
	v.Key.Src, v.Key.Dst = Addr4(h[14:18]), Addr4(h[24:28])
	return true
}

// ARP reads an Ethernet/IPv4 ARP message; false when the frame is none.
func (v *View) ARP() (a ARP, ok bool) {
	if v.Key.EthType != EthTypeARP || v.L3 == 0 {
		return a, false
	}
	h := v.Frame[v.L3:]
	return ARP{
		Op:  be16(h[6:]),
		SHA: match.MAC(h[8:14]), SPA: Addr4(h[14:18]),
		THA: match.MAC(h[18:24]), TPA: Addr4(h[24:28]),
	}, true
}

// BuildARP appends an ARP frame to dst.
func BuildARP(dst []byte, eth Ether, a ARP) []byte {
	dst = appendEther(dst, eth, EthTypeARP)
	dst = append(dst, arpEthernetIPv4[:]...)
	dst = append(dst, byte(a.Op>>8), byte(a.Op))
	dst = append(dst, a.SHA[:]...)
	dst = append(dst, a.SPA[12:]...)
	dst = append(dst, a.THA[:]...)
	return append(dst, a.TPA[12:]...)
}

// BuildARPRequest appends a broadcast request for target by (mac, addr) to dst.
func BuildARPRequest(dst []byte, mac match.MAC, addr, target match.Addr) []byte {
	return BuildARP(dst, Ether{Dst: match.Broadcast, Src: mac}, ARP{Op: ARPRequest, SHA: mac, SPA: addr, TPA: target})
}

// BuildARPReply appends to dst the answer of mac to a request, in the request's VLAN. It
// appends nothing when request is no ARP request.
func BuildARPReply(dst []byte, request *View, mac match.MAC) []byte {
	q, ok := request.ARP()
	if !ok || q.Op != ARPRequest {
		return dst
	}
	return BuildARP(dst, Ether{Dst: q.SHA, Src: mac, VLAN: request.Key.VLAN},
		ARP{Op: ARPReply, SHA: mac, SPA: q.TPA, THA: q.SHA, TPA: q.SPA})
}

// BuildGratuitousARP appends an ARP announcement (RFC 5227 section 3: a request
// whose sender and target are addr) to dst.
func BuildGratuitousARP(dst []byte, mac match.MAC, addr match.Addr) []byte {
	return BuildARPRequest(dst, mac, addr, addr)
}
