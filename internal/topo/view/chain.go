package view

import (
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gaissmai/bart"
	"github.com/google/uuid"
)

// Chain is a list of rules in their order.
type Chain struct {
	ID    uuid.UUID
	Name  string
	Rules []Rule
}

// Verdict is what a rule does with a packet that fits it.
type Verdict uint8

// Verdicts.
const (
	VerdictContinue Verdict = iota // on to the next rule
	VerdictAccept
	VerdictDrop
	VerdictReject
	VerdictJump   // on in the chain Jump, then back
	VerdictReturn // back to the calling chain; at the top level accept
	VerdictRedirect
)

func (v Verdict) String() string {
	return [...]string{"continue", "accept", "drop", "reject", "jump", "return", "redirect"}[v]
}

// Rule is one step of a chain.
type Rule struct {
	ID       uuid.UUID
	Name     string
	Position int
	Match    Condition
	Verdict  Verdict
	Jump     uuid.UUID // with VerdictJump: the chain
	Redirect Redirect  // with VerdictRedirect
	// What is done to the packet before Verdict; one of them at most.
	NAT  *NAT
	VLAN VLANChange
	DSCP *uint8 // nil: not changed
	Log  bool
	// Counters live as long as the rule, through changes too; nil where nobody counts.
	Counters *RuleCounters
}

// RuleCounters count what fitted a rule on this host. Safe for concurrent use.
type RuleCounters struct {
	Hits           atomic.Uint64 // packets that were simulated: about one for each new flow, that of answers included
	Packets, Bytes atomic.Uint64 // all packets, as the datapath reports them of the flows that passed the rule: some seconds late
}

// Label is how people call the rule: its name, or its position in the chain.
func (r *Rule) Label() string {
	if r.Name != "" {
		return r.Name
	}
	return "at " + strconv.Itoa(r.Position)
}

// Text is the rule's condition for people: groups by the names that group knows.
func (r *Rule) Text(group func(uuid.UUID) *AddressGroup) string {
	s := r.Match.String()
	for _, id := range []uuid.UUID{r.Match.SrcGroup, r.Match.DstGroup} {
		if g := group(id); g != nil && g.Name != "" {
			s = strings.ReplaceAll(s, id.String(), g.Name)
		}
	}
	return s
}

// AddressGroup is a set of addresses.
type AddressGroup struct {
	ID        uuid.UUID
	Name      string
	Addresses []netip.Prefix // in order
	table     bart.Lite
}

// NewAddressGroup makes a group, which takes the list over.
func NewAddressGroup(id uuid.UUID, name string, addresses []netip.Prefix) *AddressGroup {
	g := &AddressGroup{ID: id, Name: name, Addresses: addresses}
	for _, a := range addresses {
		g.table.Insert(a)
	}
	return g
}

// Contains reports whether a is in the group. It does not allocate. A nil group is empty.
func (g *AddressGroup) Contains(a netip.Addr) bool {
	return g != nil && a.IsValid() && g.table.Contains(a)
}
