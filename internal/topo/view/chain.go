package view

import (
	"cmp"
	"net/netip"
	"slices"
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
	Addresses []netip.Prefix // in order, each once
	table     *bart.Lite     // never changes: groups share it
}

// NewAddressGroup makes a group, which takes the list over. was is the group that it takes the place of, nil when there is none: what they have in common is
// not made anew.
func NewAddressGroup(id uuid.UUID, name string, addresses []netip.Prefix, was *AddressGroup) *AddressGroup {
	for i, a := range addresses {
		addresses[i] = a.Masked()
	}
	slices.SortFunc(addresses, comparePrefixes)
	g := &AddressGroup{ID: id, Name: name, Addresses: slices.Compact(addresses), table: new(bart.Lite)}
	if was != nil {
		if went, came := was.Diff(g); alteredCost*(len(went)+len(came)) < len(g.Addresses) {
			g.table = was.table
			for _, a := range went {
				g.table = g.table.DeletePersist(a)
			}
			for _, a := range came {
				g.table = g.table.InsertPersist(a)
			}
			return g
		}
	}
	for _, a := range g.Addresses {
		g.table.Insert(a)
	}
	return g
}

// alteredCost is how many addresses a table takes in about the time in which a copy with one more is made of it.
const alteredCost = 8

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Diff lists, in order, what is in the group and not in another, and the other way round. Either may be nil, and is empty then.
func (g *AddressGroup) Diff(is *AddressGroup) (went, came []netip.Prefix) {
	var a, b []netip.Prefix
	if g != nil {
		a = g.Addresses
	}
	if is != nil {
		b = is.Addresses
	}
	for len(a) > 0 && len(b) > 0 {
		switch c := comparePrefixes(a[0], b[0]); {
		case c < 0:
			went, a = append(went, a[0]), a[1:]
		case c > 0:
			came, b = append(came, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(went, a...), append(came, b...)
}

// Contains reports whether a is in the group. It does not allocate. A nil group is empty.
func (g *AddressGroup) Contains(a netip.Addr) bool {
	return g != nil && a.IsValid() && g.table.Contains(a)
}
