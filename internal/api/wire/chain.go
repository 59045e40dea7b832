package wire

import "github.com/viaduct-net/viaduct/internal/topo/model"

// Chain is model.Chain on the wire.
type Chain struct {
	Meta
}

// PortGroup is model.PortGroup on the wire.
type PortGroup struct {
	Meta
	Stateful bool `json:"stateful,omitempty" doc:"Packets of a connection through one of the ports may come in by any other, as they do where several uplinks lead to the same place: the hosts of all of them are told of it."`
}

// AddressGroup is model.AddressGroup on the wire.
type AddressGroup struct {
	Meta
	Addresses []string `json:"addresses,omitempty" example:"[\"10.0.1.0/24\"]" doc:"Addresses and subnets in the group, of either family."`
}

// Match is a condition, on the wire and, with names in place of ids, in documents. All fields that are given must fit.
type Match struct {
	Invert       bool     `json:"invert,omitempty" yaml:"invert" doc:"Fit what does not fit the fields together; fragment and connection stand outside."`
	Not          []string `json:"not,omitempty" yaml:"not" example:"[\"src\"]" doc:"Fields that are inverted, by name. A packet that lacks what a field is about fits its inversion."`
	InPorts      []string `json:"in_ports,omitempty" yaml:"in_ports" doc:"Ports by which the packet entered the device at hand."`
	OutPorts     []string `json:"out_ports,omitempty" yaml:"out_ports" doc:"Ports by which it leaves the device."`
	InPortGroup  string   `json:"in_port_group,omitempty" yaml:"in_port_group" doc:"Group of the port by which the packet entered the device at hand."`
	OutPortGroup string   `json:"out_port_group,omitempty" yaml:"out_port_group" doc:"Group of the port by which it leaves the device."`
	PortGroup    string   `json:"port_group,omitempty" yaml:"port_group" doc:"Group of the exterior port by which it entered the virtual network."`
	Traversed    string   `json:"traversed,omitempty" yaml:"traversed" doc:"Bridge or router that it has entered, the one at hand included."`
	EthType      string   `json:"eth_type,omitempty" yaml:"eth_type" example:"ipv4" doc:"ipv4, ipv6, arp, or a number such as 0x88cc."`
	EthSrc       string   `json:"eth_src,omitempty" yaml:"eth_src" example:"02:00:00:00:00:00/ff:00:00:00:00:00" doc:"Source MAC address, with an optional mask."`
	EthDst       string   `json:"eth_dst,omitempty" yaml:"eth_dst" example:"02:00:00:00:00:01" doc:"Destination MAC address, with an optional mask."`
	VLAN         int      `json:"vlan,omitempty" yaml:"vlan" minimum:"0" maximum:"4094" doc:"VLAN id of the outer tag."`
	NoVLAN       bool     `json:"no_vlan,omitempty" yaml:"no_vlan" doc:"Untagged."`
	TOS          *int     `json:"tos,omitempty" yaml:"tos" minimum:"0" maximum:"255" doc:"IPv4 type of service or IPv6 traffic class, the whole byte."`
	Proto        string   `json:"proto,omitempty" yaml:"proto" example:"tcp" doc:"tcp, udp, sctp, icmp, icmpv6, or a number; of IPv6 after extension headers."`
	Src          string   `json:"src,omitempty" yaml:"src" example:"10.0.0.0/8" doc:"Source address or subnet; of ARP the sender's."`
	Dst          string   `json:"dst,omitempty" yaml:"dst" example:"10.0.0.0/8" doc:"Destination address or subnet; of ARP the target's."`
	OriginalDst  string   `json:"original_dst,omitempty" yaml:"original_dst" doc:"Address or subnet of the destination with which the packet came to the device at hand, before translation."`
	DstRewritten bool     `json:"dst_rewritten,omitempty" yaml:"dst_rewritten" doc:"The device at hand has translated the destination."`
	SrcGroup     string   `json:"src_group,omitempty" yaml:"src_group" doc:"Address group of the source."`
	DstGroup     string   `json:"dst_group,omitempty" yaml:"dst_group" doc:"Address group of the destination."`
	SrcPorts     string   `json:"src_ports,omitempty" yaml:"src_ports" example:"1024-65535" doc:"Source port or range; needs proto tcp, udp or sctp."`
	DstPorts     string   `json:"dst_ports,omitempty" yaml:"dst_ports" example:"443" doc:"Destination port or range; needs proto tcp, udp or sctp."`
	ICMPTypes    string   `json:"icmp_types,omitempty" yaml:"icmp_types" example:"8" doc:"ICMP type or range; needs proto icmp or icmpv6."`
	ICMPCodes    string   `json:"icmp_codes,omitempty" yaml:"icmp_codes" example:"0-15" doc:"ICMP code or range; needs proto icmp or icmpv6."`
	QuotedSrc    string   `json:"quoted_src,omitempty" yaml:"quoted_src" doc:"Source of the packet that an ICMP error quotes."`
	QuotedDst    string   `json:"quoted_dst,omitempty" yaml:"quoted_dst" doc:"Destination of the packet that an ICMP error quotes."`
	Fragment     string   `json:"fragment,omitempty" yaml:"fragment" enum:"any,follow,header,nonheader,unfragmented" doc:"Pieces of fragmented packets that the rule is about: all; all, the later ones as the first one of their datagram; those with a transport header; the later ones; none. Default any, with ports or ICMP fields follow, with quoted_ fields header."`
	Connection   string   `json:"connection,omitempty" yaml:"connection" enum:"new,return" doc:"Packets that the rule is about by their connection: return, answers to what has passed at the same port, bridge or router, and ICMP errors about it; new, all others. Asking has the connection tracked."`
}

// Kind implements Object.
func (*Chain) Kind() model.Kind { return model.KindChain }

// Kind implements Object.
func (*PortGroup) Kind() model.Kind { return model.KindPortGroup }

// Kind implements Object.
func (*AddressGroup) Kind() model.Kind { return model.KindAddressGroup }

// Model implements Object.
func (w *Chain) Model() (model.Object, error) {
	var p parser
	return p.done(&model.Chain{Meta: p.meta(w.Meta)})
}

// Model implements Object.
func (w *PortGroup) Model() (model.Object, error) {
	var p parser
	return p.done(&model.PortGroup{Meta: p.meta(w.Meta), Stateful: w.Stateful})
}

// Model implements Object.
func (w *AddressGroup) Model() (model.Object, error) {
	var p parser
	o := &model.AddressGroup{Meta: p.meta(w.Meta)}
	for i, a := range w.Addresses {
		o.Addresses = append(o.Addresses, p.subnet(index("addresses", i), a))
	}
	return p.done(o)
}
