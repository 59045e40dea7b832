package view

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Redirect is where a rule sends packets.
type Redirect struct {
	Port     uuid.UUID
	Egress   bool // out of it; else they come in by it
	FailOpen bool
}

func (r Redirect) String() string {
	s := "redirect into port "
	if r.Egress {
		s = "redirect out of port "
	}
	if s += r.Port.String(); r.FailOpen {
		s += ", fail_open"
	}
	return s
}

// VLANChange is what a rule does to the tag: PushVLAN of an id, PopVLAN, or nothing.
type VLANChange uint16

// PopVLAN takes the tag off. Other values but 0 are ids to be added.
const PopVLAN VLANChange = 0xffff

// NAT is what a rule translates.
type NAT struct {
	Source  bool // the source, else the destination
	Reverse bool // back, of answers: Source says what had been translated
	Targets []Target
	total   uint64 // of pairs of address and port
}

// Target is a range of addresses of one family with a range of ports; Lo 0: ports stay as they are.
type Target struct {
	From, To match.Addr
	Lo, Hi   uint16
}

// NewNAT makes a NAT, which takes the list over.
func NewNAT(source, reverse bool, targets []Target) *NAT {
	n := &NAT{Source: source, Reverse: reverse, Targets: targets}
	for i := range targets {
		n.total += targets[i].pairs()
	}
	return n
}

// Static reports a translation to a single address, with ports as they are.
func (n *NAT) Static() bool { return n.total == 1 && n.Targets[0].Lo == 0 }

// Is4 reports the family that the rule is for.
func (n *NAT) Is4() bool { return n.Targets[0].From.Is4() }

func (t *Target) addrs() uint64 { return uint64(low(&t.To)-low(&t.From)) + 1 }
func (t *Target) ports() uint64 { return uint64(t.Hi-t.Lo) + 1 }
func (t *Target) pairs() uint64 { return t.addrs() * t.ports() }

func low(a *match.Addr) uint32 { return binary.BigEndian.Uint32(a[12:]) }

// Contains reports whether the address is in the range.
func (t *Target) Contains(a *match.Addr) bool {
	return [12]byte(a[:12]) == [12]byte(t.From[:12]) && low(a) >= low(&t.From) && low(a) <= low(&t.To)
}

// Pair is the i-th pair of address and port of the targets, i modulo their number; port 0: it stays.
func (n *NAT) Pair(i uint64) (addr match.Addr, port uint16) {
	i %= n.total
	for k := range n.Targets {
		t := &n.Targets[k]
		if i >= t.pairs() {
			i -= t.pairs()
			continue
		}
		return t.addr(i / t.ports()), t.Lo + uint16(i%t.ports())
	}
	return addr, 0
}

// Addr is the i-th address of the targets, i modulo their number, with its range of ports; Lo 0: none is given.
func (n *NAT) Addr(i uint64) (addr match.Addr, lo, hi uint16) {
	i %= n.Addrs()
	for k := range n.Targets {
		t := &n.Targets[k]
		if i < t.addrs() {
			return t.addr(i), t.Lo, t.Hi
		}
		i -= t.addrs()
	}
	return addr, 0, 0
}

func (t *Target) addr(i uint64) match.Addr {
	a := t.From
	binary.BigEndian.PutUint32(a[12:], low(&a)+uint32(i))
	return a
}

// Addrs and Pairs are how many there are.
func (n *NAT) Addrs() (k uint64) {
	for i := range n.Targets {
		k += n.Targets[i].addrs()
	}
	return k
}

// Pairs is the number of pairs of address and port.
func (n *NAT) Pairs() uint64 { return n.total }

// Has reports whether the rule may translate to the address and port; the port does not count where it stays.
func (n *NAT) Has(a *match.Addr, port uint16) bool {
	for i := range n.Targets {
		if t := &n.Targets[i]; t.Contains(a) && (t.Lo == 0 || t.Lo <= port && port <= t.Hi) {
			return true
		}
	}
	return false
}

// Translated is what the rules of a device or port translate to: from and to these addresses come the answers, which are to be
// translated back. nil: nothing.
type Translated struct {
	Sources, Destinations []Target
}

// Add notes what a rule translates to.
func (t *Translated) Add(n *NAT) {
	if n == nil || n.Reverse {
		return
	}
	if n.Source {
		t.Sources = append(t.Sources, n.Targets...)
	} else {
		t.Destinations = append(t.Destinations, n.Targets...)
	}
}

// OrNil is nil when there is nothing in t.
func (t *Translated) OrNil() *Translated {
	if len(t.Sources)+len(t.Destinations) == 0 {
		return nil
	}
	return t
}

// HasSource reports whether sources are translated to a.
func (t *Translated) HasSource(a *match.Addr) bool { return t != nil && contains(t.Sources, a) }

// HasDestination reports whether destinations are translated to a.
func (t *Translated) HasDestination(a *match.Addr) bool {
	return t != nil && contains(t.Destinations, a)
}

func contains(ts []Target, a *match.Addr) bool {
	for i := range ts {
		if ts[i].Contains(a) {
			return true
		}
	}
	return false
}

// Action is what the rule does, as people write it: "drop", "dnat to 10.0.0.5:80, continue".
func (r *Rule) Action() string {
	what := ""
	switch {
	case r.NAT != nil:
		what = r.NAT.String()
	case r.VLAN == PopVLAN:
		what = "pop_vlan"
	case r.VLAN != 0:
		what = fmt.Sprintf("push_vlan %d", r.VLAN)
	case r.DSCP != nil:
		what = fmt.Sprintf("set_dscp %d", *r.DSCP)
	case r.Verdict == VerdictRedirect:
		return r.Redirect.String()
	default:
		return r.Verdict.String()
	}
	return what + ", " + r.Verdict.String()
}

func (n *NAT) String() string {
	s := map[bool]string{true: "snat", false: "dnat"}[n.Source]
	if n.Reverse {
		return "rev_" + s
	}
	var to []string
	for _, t := range n.Targets {
		x := t.From.String()
		if t.To != t.From {
			x += "-" + t.To.String()
		}
		switch {
		case t.Lo == 0:
		case t.Lo == t.Hi:
			x += fmt.Sprintf(" port %d", t.Lo)
		default:
			x += fmt.Sprintf(" port %d-%d", t.Lo, t.Hi)
		}
		to = append(to, x)
	}
	return s + " to " + strings.Join(to, ", ")
}
