package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

const (
	raLen       = 16 // without options
	optPrefix   = 3
	optMTU      = 5
	optRDNSS    = 25 // RFC 8106
	optDNSSL    = 31
	raManaged   = 0x80
	raOther     = 0x40
	raOnLink    = 0x80
	raAuto      = 0x40
	raHopLimit  = 64
	rsLen       = 8
	mtuOptLen   = 8
	prefixWords = 4
)

// RouterAdvert is what a router advertises (RFC 4861 section 4.2).
type RouterAdvert struct {
	MAC            match.MAC // of the router
	Managed, Other bool      // M and O
	Lifetime       uint16    // seconds as a default router
	MTU            uint32    // 0: not told
	Prefixes       []AdvertPrefix
	DNSLifetime    uint32 // seconds, of DNS and Domains
	DNS            []match.Addr
	Domains        []byte // labels (RFC 1035 section 3.1); empty: none
}

// AdvertPrefix is a prefix on the link (RFC 4861 section 4.6.2).
type AdvertPrefix struct {
	Prefix   match.Addr
	Bits     uint8
	Auto     bool   // hosts may form addresses from it
	Lifetime uint32 // seconds, valid and preferred
}

// RouterSolicitation reports whether the frame is one that RFC 4861 section 6.1.1 does not discard.
func (v *View) RouterSolicitation() bool {
	m, ok := v.ICMP()
	b := v.Transport()
	if !ok || !v.Is6() || m.Type != ICMPv6RouterSol || m.Code != 0 || v.TTL != ndHopLimit || len(b) < rsLen {
		return false
	}
	for b = b[rsLen:]; len(b) > 0; b = b[int(b[1])*8:] {
		if len(b) < 8 || b[1] == 0 || len(b) < int(b[1])*8 || b[0] == optSourceLLA && v.Key.Src == (match.Addr{}) {
			return false
		}
	}
	return true
}

// BuildRouterAdvert appends an advertisement from src to a host, or to all nodes when to is the zero Addr.
func BuildRouterAdvert(dst []byte, eth Ether, src, to match.Addr, a RouterAdvert) []byte {
	if to == (match.Addr{}) {
		to, eth.Dst = allNodes, allNodesMAC
	}
	var flags uint32
	if a.Managed {
		flags |= raManaged
	}
	if a.Other {
		flags |= raOther
	}
	p := make([]byte, raLen-ICMPLen, 256) // reachable time and retransmission timer: not told
	p = append(append(p, optSourceLLA, 1), a.MAC[:]...)
	if a.MTU != 0 {
		p = append16(append(p, optMTU, mtuOptLen/8), 0, uint16(a.MTU>>16), uint16(a.MTU))
	}
	for _, x := range a.Prefixes {
		f := byte(raOnLink)
		if x.Auto {
			f |= raAuto
		}
		hi, lo := uint16(x.Lifetime>>16), uint16(x.Lifetime)
		p = append16(append(p, optPrefix, prefixWords, x.Bits, f), hi, lo, hi, lo, 0, 0)
		p = append(p, x.Prefix[:]...)
	}
	life := [2]uint16{uint16(a.DNSLifetime >> 16), uint16(a.DNSLifetime)}
	if len(a.DNS) > 0 {
		p = append16(append(p, optRDNSS, byte(1+2*len(a.DNS))), 0, life[0], life[1])
		for _, x := range a.DNS {
			p = append(p, x[:]...)
		}
	}
	if n := len(a.Domains); n > 0 {
		words := (n + 7) / 8
		p = append16(append(p, optDNSSL, byte(1+words)), 0, life[0], life[1])
		p = append(append(p, a.Domains...), make([]byte, words*8-n)...)
	}
	m := ICMP{Type: ICMPv6RouterAdv, Rest: raHopLimit<<24 | flags<<16 | uint32(a.Lifetime)}
	return BuildICMP(dst, eth, IP{Src: src, Dst: to, TTL: ndHopLimit}, m, p)
}
