package dhcp4

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
)

// Lengths of a message, in bytes.
const (
	headers    = 20 + 8 // IPv4 and UDP, which the client's maximum includes (RFC 2132 section 9.10)
	minMaximum = 576    // what every client takes (RFC 2131 section 2)
	fixed      = 240    // what comes before the options, magic cookie included
	maxMaximum = 1500   // no more than fits into one frame
)

// configure adds what the subnet says. What the client would have no room for is left
// out, the least needed first.
func (r *reply) configure(m *dhcpv4.DHCPv4) {
	s := r.subnet
	mask := net.CIDRMask(s.Prefix.Bits(), 32)
	m.UpdateOption(dhcpv4.OptSubnetMask(mask))
	room := r.room() - fixed - len(m.Options.ToBytes()) - 1
	add := func(code dhcpv4.OptionCode, data []byte) {
		if n := optionLen(data); len(data) > 0 && n <= room {
			room -= n
			m.Options[code.Code()] = data
		}
	}
	if s.Gateway.IsValid() {
		add(dhcpv4.OptionRouter, s.Gateway.AsSlice())
	}
	add(dhcpv4.OptionClasslessStaticRoute, routes(s))
	if s.MTU > 0 {
		add(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(min(s.MTU, 0xffff))))
	}
	var dns []byte
	for _, a := range s.DNS {
		dns = append(dns, a.AsSlice()...)
	}
	add(dhcpv4.OptionDomainNameServer, dns)
	add(dhcpv4.OptionDomainName, []byte(s.Domain))
	if s.Prefix.Bits() < 31 { // RFC 3021: smaller ones have no broadcast address
		add(dhcpv4.OptionBroadcastAddress, broadcast(s.Prefix))
	}
	for _, o := range s.Options {
		add(dhcpv4.GenericOptionCode(o.Code), o.Data)
	}
}

// room is the longest UDP payload that the client takes.
func (r *reply) room() int {
	maximum := minMaximum
	if n, err := r.request.MaxMessageSize(); err == nil {
		maximum = min(max(int(n), minMaximum), maxMaximum)
	}
	return maximum - headers
}

// optionLen is the length of an option in the message; a long one is split (RFC 3396).
func optionLen(data []byte) int { return len(data) + 2*((len(data)+254)/255) }

// routes is the value of option 121. A client that understands it ignores the router option, so the
// default route is among them (RFC 3442).
func routes(s *dhcp.Subnet) []byte {
	if len(s.Routes) == 0 {
		return nil
	}
	var rs dhcpv4.Routes
	all := s.Routes
	if s.Gateway.IsValid() {
		all = append(all[:len(all):len(all)], dhcp.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: s.Gateway})
	}
	for _, x := range all {
		rs = append(rs, &dhcpv4.Route{
			Dest:   &net.IPNet{IP: x.Dst.Addr().AsSlice(), Mask: net.CIDRMask(x.Dst.Bits(), 32)},
			Router: x.Via.AsSlice(),
		})
	}
	return rs.ToBytes()
}

func broadcast(p netip.Prefix) []byte {
	a := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|^uint32(0)>>p.Bits())
	return a[:]
}
