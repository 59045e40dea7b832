package model

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

// Limits of translation.
const (
	MaxTargets       = 64    // of a rule
	MaxTargetAddress = 65536 // addresses of a target
)

// NATTarget is a range of addresses, both ends included, with a range of ports; nil: ports stay as they are, but for
// sources translated to more than one address, which get any port from 1024 on.
type NATTarget struct {
	From, To netip.Addr
	Ports    *Range
}

// Redirect is where a rule sends packets.
type Redirect struct {
	PortID uuid.UUID
	// Egress has them leave by the port, past its outbound filter; otherwise they come in by it, through its inbound one.
	Egress bool
	// FailOpen: while the port is down or has nothing at its other end the rule fits nothing. Otherwise it drops.
	FailOpen bool
}

// Alters reports an action that changes packets, after which Rule.Then says how they go on.
func (a RuleAction) Alters() bool {
	return a.translates() || a == RulePushVLAN || a == RulePopVLAN || a == RuleSetDSCP
}

func (a RuleAction) translates() bool {
	return a == RuleDNAT || a == RuleSNAT || a == RuleRevDNAT || a == RuleRevSNAT
}

func (a RuleAction) targets() bool { return a == RuleDNAT || a == RuleSNAT }

// badAction says which of the fields that belong to the action is wrong.
func (g *Graph) badAction(r *Rule) (field, reason string) {
	none := fmt.Sprintf("has no meaning with action %s", r.Action)
	switch {
	case r.Action != RuleJump && r.JumpID != uuid.Nil:
		return "jump", none
	case !r.Action.Alters() && r.Then != "":
		return "then", none
	case r.Action.Alters() && !slices.Contains([]RuleAction{RuleAccept, RuleContinue, RuleReturn}, r.Then):
		return "then", fmt.Sprintf("%q is none of accept, continue, return", r.Then)
	case !r.Action.targets() && len(r.Targets) > 0:
		return "targets", none
	case r.Action != RuleRedirect && r.Redirect != (Redirect{}):
		return "redirect", none
	case r.Action != RulePushVLAN && r.VLAN != 0:
		return "vlan", none
	case r.Action != RuleSetDSCP && r.DSCP != nil:
		return "dscp", none
	}
	switch r.Action {
	case RuleDNAT, RuleSNAT:
		return badTargets(r)
	case RuleRedirect:
		if g.Get(KindPort, r.Redirect.PortID) == nil {
			return "redirect.port", fmt.Sprintf("no port %s", r.Redirect.PortID)
		}
	case RulePushVLAN:
		if reason := badVLAN(r.VLAN); reason != "" {
			return "vlan", reason
		}
		if r.Match.VLAN != 0 && r.Match.Not&MatchVLAN == 0 {
			return "match.vlan", "tagged frames get no second tag: pop the first one in a rule before"
		}
	case RulePopVLAN:
		if r.Match.NoVLAN && r.Match.Not&MatchNoVLAN == 0 {
			return "match.no_vlan", "there is no tag to take off"
		}
	case RuleSetDSCP:
		if r.DSCP == nil {
			return "dscp", "is missing"
		}
		return "dscp", badDSCP(*r.DSCP)
	}
	return "", ""
}

func badVLAN(id uint16) string {
	if id < 1 || id > 4094 { // IEEE 802.1Q table 9-2: 0 and 4095 are reserved
		return fmt.Sprintf("%d is not within 1 and 4094", id)
	}
	return ""
}

func badTargets(r *Rule) (field, reason string) {
	if len(r.Targets) == 0 {
		return "targets", fmt.Sprintf("action %s needs addresses to translate to", r.Action)
	}
	if len(r.Targets) > MaxTargets {
		return "targets", fmt.Sprintf("%d are more than %d", len(r.Targets), MaxTargets)
	}
	is4, isSet := matchFamily(&r.Match)
	for i, t := range r.Targets {
		field := fmt.Sprintf("targets[%d]", i)
		if reason := badTarget(&t); reason != "" {
			return field + ".addresses", reason
		}
		if isSet && t.From.Is4() != is4 {
			return field + ".addresses", fmt.Sprintf("%s is not of the family of the packets that the match is about", t.From)
		}
		if t.From.Is4() != r.Targets[0].From.Is4() {
			return field + ".addresses", fmt.Sprintf("%s is not of the family of %s: make a rule for each family", t.From, r.Targets[0].From)
		}
		if reason := badTargetPorts(r, t.Ports); reason != "" {
			return field + ".ports", reason
		}
	}
	return "", ""
}

func badTarget(t *NATTarget) string {
	for _, a := range []netip.Addr{t.From, t.To} {
		if reason := badUnicast(a); reason != "" {
			return reason
		}
	}
	switch {
	case t.From.Is4() != t.To.Is4():
		return fmt.Sprintf("%s and %s are of different families", t.From, t.To)
	case t.To.Less(t.From):
		return fmt.Sprintf("%s comes after %s", t.From, t.To)
	case t.size() > MaxTargetAddress:
		return fmt.Sprintf("%s-%s are more than %d addresses", t.From, t.To, MaxTargetAddress)
	}
	return ""
}

// size is the number of addresses, or one that is too large.
func (t *NATTarget) size() int {
	a, b := t.From.As16(), t.To.As16()
	if [12]byte(a[:12]) != [12]byte(b[:12]) {
		return MaxTargetAddress + 1
	}
	low := func(x [16]byte) int { return int(x[12])<<24 | int(x[13])<<16 | int(x[14])<<8 | int(x[15]) }
	return low(b) - low(a) + 1
}

func badTargetPorts(r *Rule, ports *Range) string {
	switch {
	case ports == nil:
	case ports.From > ports.To || ports.From == 0:
		return fmt.Sprintf("%d-%d is not a range within 1 and 65535", ports.From, ports.To)
	case r.Action == RuleDNAT && (r.Match.Not&MatchProto != 0 || !slices.Contains([]uint8{protoTCP, protoUDP, protoSCTP}, r.Match.Proto)):
		return "need match.proto to be tcp, udp or sctp: packets of other protocols have no port to translate"
	}
	return ""
}

// matchFamily is the family of all that fits, when the condition says so.
func matchFamily(m *Condition) (is4, isSet bool) {
	if m.Invert {
		return false, false
	}
	given := m.Given() &^ m.Not
	switch {
	case given&MatchEthType != 0 && (m.EthType == 0x0800 || m.EthType == 0x86dd):
		return m.EthType == 0x0800, true
	case given&MatchProto != 0 && (m.Proto == protoICMP || m.Proto == protoICMPv6):
		return m.Proto == protoICMP, true
	case given&MatchSrc != 0:
		return m.Src.Addr().Is4(), true
	case given&MatchDst != 0:
		return m.Dst.Addr().Is4(), true
	}
	return false, false
}
