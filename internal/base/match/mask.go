package match

import "strings"

// Mask is the set of key fields that a decision has read. A field is in it whole or
// not at all, so that the number of distinct masks stays small whatever a
// tenant sends (tuple space explosion). DHCP alone is less than a field.
type Mask uint16

// Fields of a Key. InPort is in every mask.
const (
	InPort Mask = 1 << iota
	TunKey
	EthDst
	EthSrc
	EthType
	VLAN
	Src
	Dst
	Proto
	TOS
	Frag
	SrcPort
	DstPort

	All Mask = 1<<iota - 1

	// DHCP is the destination port as far as it is one of DHCP's: all other ports are alike. What a bridge that serves DHCP, or port
	// security, asks of every UDP packet would otherwise tell apart flows that nobody else does. DstPort includes it.
	DHCP = All + 1
)

// Ports of servers and clients (RFC 2131 section 4.1, RFC 8415 section 7.2).
const (
	dhcpServer, dhcpClient     = 67, 68
	dhcpv6Client, dhcpv6Server = 546, 547
)

// DHCPPort is a port that is one of DHCP's, and 0 for all others.
func DHCPPort(port uint16) uint16 {
	switch port {
	case dhcpServer, dhcpClient, dhcpv6Client, dhcpv6Server:
		return port
	}
	return 0
}

var fieldNames = [...]string{"in_port", "tun_key", "eth_dst", "eth_src", "eth_type", "vlan", "src", "dst", "proto", "tos", "frag", "src_port", "dst_port", "dhcp_port"}

// String lists the fields by name, separated by commas.
func (m Mask) String() string {
	var s []string
	for i, n := range fieldNames {
		if m&(1<<i) != 0 {
			s = append(s, n)
		}
	}
	return strings.Join(s, ",")
}

// Apply returns k with every field outside m zeroed. With DHCP but without DstPort, what is left of the destination port is DHCPPort.
func (m Mask) Apply(k *Key) (r Key) {
	r.InPort = k.InPort
	if m&TunKey != 0 {
		r.TunKey = k.TunKey
	}
	if m&EthDst != 0 {
		r.EthDst = k.EthDst
	}
	if m&EthSrc != 0 {
		r.EthSrc = k.EthSrc
	}
	if m&EthType != 0 {
		r.EthType = k.EthType
	}
	if m&VLAN != 0 {
		r.VLAN = k.VLAN
	}
	if m&Src != 0 {
		r.Src = k.Src
	}
	if m&Dst != 0 {
		r.Dst = k.Dst
	}
	if m&Proto != 0 {
		r.Proto = k.Proto
	}
	if m&TOS != 0 {
		r.TOS = k.TOS
	}
	if m&Frag != 0 {
		r.Frag = k.Frag
	}
	if m&SrcPort != 0 {
		r.SrcPort = k.SrcPort
	}
	switch {
	case m&DstPort != 0:
		r.DstPort = k.DstPort
	case m&DHCP != 0:
		r.DstPort = DHCPPort(k.DstPort)
	}
	return r
}
