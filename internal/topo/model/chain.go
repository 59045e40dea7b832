package model

import (
	"net/netip"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Chain is a named list of rules, which filters what passes the places that name the chain.
type Chain struct {
	Meta
}

// PortGroup is a set of ports: those whose PortGroups name it.
type PortGroup struct {
	Meta
	// Stateful: packets of a connection through one of the ports may come in by any other. The hosts of all of them are told of it.
	Stateful bool
}

// AddressGroup is a set of addresses and subnets of either family.
type AddressGroup struct {
	Meta
	Addresses []netip.Prefix // no host bits set; each once
}

// RuleAction is what a rule does with a packet that fits its Match.
type RuleAction string

// Rule actions.
const (
	RuleAccept   RuleAction = "accept"   // decides: the packet goes on
	RuleDrop     RuleAction = "drop"     // decides: the packet ends silently
	RuleReject   RuleAction = "reject"   // decides: the packet ends; a router says "administratively prohibited"
	RuleJump     RuleAction = "jump"     // to the first rule of another chain, and back here when that returns
	RuleReturn   RuleAction = "return"   // to the rule after the jump; at the top level: accept
	RuleContinue RuleAction = "continue" // to the next rule

	// What follows changes the packet, which then goes on as Rule.Then says. A packet that cannot be changed so does not fit.
	RuleDNAT     RuleAction = "dnat"      // translates the destination to one of Targets
	RuleSNAT     RuleAction = "snat"      // translates the source
	RuleRevDNAT  RuleAction = "rev_dnat"  // translates the source of an answer back; a packet that is none does not fit
	RuleRevSNAT  RuleAction = "rev_snat"  // translates the destination of an answer back
	RulePushVLAN RuleAction = "push_vlan" // tags an untagged frame with VLAN
	RulePopVLAN  RuleAction = "pop_vlan"  // takes the tag off
	RuleSetDSCP  RuleAction = "set_dscp"  // marks an IP packet with DSCP

	RuleRedirect RuleAction = "redirect" // decides: the packet goes to the port that Redirect names instead
)

// RuleActions lists all actions.
var RuleActions = []RuleAction{
	RuleAccept, RuleDrop, RuleReject, RuleJump, RuleReturn, RuleContinue,
	RuleDNAT, RuleSNAT, RuleRevDNAT, RuleRevSNAT, RulePushVLAN, RulePopVLAN, RuleSetDSCP, RuleRedirect,
}

// Rule is one step of a chain. Rules are tried in the order of Position, which is unique in the chain.
// A packet that comes to the end of a chain returns.
type Rule struct {
	Meta
	ChainID  uuid.UUID
	Position int // from 1
	Match    Condition
	Action   RuleAction
	JumpID   uuid.UUID // the chain, with RuleJump

	Then     RuleAction  // RuleAccept, RuleContinue or RuleReturn, with actions that change packets; "": RuleAccept
	Targets  []NATTarget // with RuleDNAT and RuleSNAT
	Redirect Redirect    // with RuleRedirect
	VLAN     uint16      // with RulePushVLAN
	DSCP     *uint8      // with RuleSetDSCP
	Log      bool        // has the host's agent write a line about each new flow that fits, as far as its bounds allow
}

// Fragment says which pieces of fragmented packets a rule is about.
type Fragment string

// Fragment policies.
const (
	FragmentAny          Fragment = "any"
	FragmentFollow       Fragment = "follow"       // all: later fragments fit when the first one of their datagram does
	FragmentHeader       Fragment = "header"       // with a transport header: whole packets and first fragments
	FragmentNonheader    Fragment = "nonheader"    // later fragments
	FragmentUnfragmented Fragment = "unfragmented" // whole packets
)

// Connection says which packets a rule is about by the connection that they belong to.
type Connection string

// Connection states. What is asked for is tracked from then on: at a port by that port, whichever way packets go.
const (
	ConnectionAny    Connection = ""
	ConnectionNew    Connection = "new"    // not the other side's answer to a packet that has passed here
	ConnectionReturn Connection = "return" // an answer, or an ICMP error about either side's packets
)

// Range is a range of numbers, both ends included.
type Range struct{ From, To uint16 }

// MACMatch is the set of MAC addresses that agree with Addr in the bits of Mask. A zero Mask stands for no condition.
type MACMatch struct{ Addr, Mask match.MAC }

// Condition is a conjunction: a packet fits when it fits each field that is given. The zero value fits all. A packet
// that lacks what a field is about, such as ports, does not fit the field, and therefore fits its
// inversion. Of an ARP packet Src and Dst are the sender's and target's protocol address.
type Condition struct {
	Invert bool       // fits what the conjunction of the fields below, Fragment excepted, does not
	Not    MatchField // the fields that are inverted, each for itself

	InPorts      []uuid.UUID // the port by which the packet entered the device at hand
	OutPorts     []uuid.UUID // the port by which it leaves
	InPortGroup  uuid.UUID
	OutPortGroup uuid.UUID
	PortGroup    uuid.UUID // of the exterior port by which it entered the virtual network
	Traversed    uuid.UUID // a bridge or router that it has entered, the one at hand included

	EthType        uint16 // 0: any
	EthSrc, EthDst MACMatch
	VLAN           uint16 // id of the outer tag; 0: any
	NoVLAN         bool   // untagged

	TOS                  *uint8 // the whole byte
	Proto                uint8  // after IPv6 extension headers; 0: any
	Src, Dst             netip.Prefix
	OriginalDst          netip.Prefix // of the destination with which the packet came to the device at hand
	DstRewritten         bool         // the device at hand has translated the destination
	SrcGroup, DstGroup   uuid.UUID
	SrcPorts, DstPorts   *Range // TCP, UDP, SCTP
	ICMPTypes, ICMPCodes *Range
	// Addresses of the packet that an ICMP error quotes.
	QuotedSrc, QuotedDst netip.Prefix
	// Fragment applies whatever Invert says; MatchFragment inverts it. "": any; follow when fields of the
	// transport header are given, header when those of what an ICMP error quotes are.
	Fragment Fragment
	// Connection applies whatever Invert says, and last; MatchConnection inverts it: what the rule's port, bridge or router has seen of the packet's
	// connection.
	Connection Connection
}

// MatchField is a set of fields of a Condition.
type MatchField uint32

// Fields of a Condition.
const (
	MatchInPorts MatchField = 1 << iota
	MatchOutPorts
	MatchInPortGroup
	MatchOutPortGroup
	MatchPortGroup
	MatchTraversed
	MatchEthType
	MatchEthSrc
	MatchEthDst
	MatchVLAN
	MatchNoVLAN
	MatchTOS
	MatchProto
	MatchSrc
	MatchDst
	MatchOriginalDst
	MatchDstRewritten
	MatchSrcGroup
	MatchDstGroup
	MatchSrcPorts
	MatchDstPorts
	MatchICMPTypes
	MatchICMPCodes
	MatchQuotedSrc
	MatchQuotedDst
	MatchFragment
	MatchConnection
	matchEnd
)

var matchNames = [...]string{
	"in_ports", "out_ports", "in_port_group", "out_port_group", "port_group", "traversed", "eth_type", "eth_src", "eth_dst", "vlan", "no_vlan",
	"tos", "proto", "src", "dst", "original_dst", "dst_rewritten", "src_group", "dst_group", "src_ports", "dst_ports", "icmp_types", "icmp_codes", "quoted_src", "quoted_dst",
	"fragment", "connection",
}

// Names lists the fields as the API calls them.
func (f MatchField) Names() []string {
	var s []string
	for i, n := range matchNames {
		if f&(1<<i) != 0 {
			s = append(s, n)
		}
	}
	return s
}

// ParseMatchField finds a field by the API's name for it.
func ParseMatchField(name string) (MatchField, bool) {
	for i, n := range matchNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// Given is the set of fields that m tests, Fragment and Connection excepted, which stand outside the conjunction.
func (m *Condition) Given() MatchField {
	var f MatchField
	for i, given := range [...]bool{
		len(m.InPorts) > 0, len(m.OutPorts) > 0, m.InPortGroup != uuid.Nil, m.OutPortGroup != uuid.Nil, m.PortGroup != uuid.Nil,
		m.Traversed != uuid.Nil, m.EthType != 0, m.EthSrc.Mask != match.MAC{}, m.EthDst.Mask != match.MAC{}, m.VLAN != 0,
		m.NoVLAN, m.TOS != nil, m.Proto != 0, m.Src.IsValid(), m.Dst.IsValid(), m.OriginalDst.IsValid(), m.DstRewritten, m.SrcGroup != uuid.Nil, m.DstGroup != uuid.Nil,
		m.SrcPorts != nil, m.DstPorts != nil, m.ICMPTypes != nil, m.ICMPCodes != nil, m.QuotedSrc.IsValid(), m.QuotedDst.IsValid(),
	} {
		if given {
			f |= 1 << i
		}
	}
	return f
}

// Kind implements Object.
func (*Chain) Kind() Kind { return KindChain }

// Kind implements Object.
func (*Rule) Kind() Kind { return KindRule }

// Kind implements Object.
func (*PortGroup) Kind() Kind { return KindPortGroup }

// Kind implements Object.
func (*AddressGroup) Kind() Kind { return KindAddressGroup }
