// Package health is what hosts tell each other about the members of load balancers: each reports, under a key that lives as
// long as it does, what its checks have found, and from who reports at all it follows who checks what.
package health

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

const root = ".report/health/"

// Prefix is what all keys begin with.
const Prefix = root

// Key is where a host announces (store.Keys) its Report.
func Key(host uuid.UUID) string { return root + host.String() }

// Status is what checks of a member have found.
type Status struct {
	Up     bool
	Reason string    // why it is down
	Since  time.Time // when it was first found so, to the second; zero: by a host that does not say
}

// Report is what a host has found, by the router from which it checks, and by member.
type Report map[uuid.UUID]map[uuid.UUID]Status

// Text is the report as it is announced: a line for each member, "ROUTER MEMBER up|down since=TIME REASON".
func (r Report) Text() string {
	var lines []string
	for router, members := range r {
		for member, s := range members {
			state := "down"
			if s.Up {
				state = "up"
			}
			reason := strings.Join(strings.Fields(s.Reason), " ")
			if !s.Since.IsZero() {
				reason = sinceWord + s.Since.UTC().Format(time.RFC3339) + " " + reason
			}
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", router, member, state, reason)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

const sinceWord = "since="

// Parse reads what Text has written. Lines that it cannot read, as a later version may write, are left out.
func Parse(text string) Report {
	r := make(Report)
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(f) < 3 {
			continue
		}
		router, err := uuid.Parse(f[0])
		member, err2 := uuid.Parse(f[1])
		if err != nil || err2 != nil {
			continue
		}
		s := Status{Up: f[2] == "up"}
		if len(f) == 4 {
			s.Reason = f[3]
			if since, rest, _ := strings.Cut(f[3], " "); strings.HasPrefix(since, sinceWord) {
				if at, err := time.Parse(time.RFC3339, since[len(sinceWord):]); err == nil {
					s.Since, s.Reason = at, rest
				}
			}
		}
		if r[router] == nil {
			r[router] = make(map[uuid.UUID]Status)
		}
		r[router][member] = s
	}
	return r
}

// State is what all hosts together say.
type State struct {
	Hosts   []uuid.UUID // those that can check
	Members Report      // what the elected one of each router has found
}

// Read makes the state of what is under Prefix. Of what nobody reports, was says what was known before.
func Read(keys map[string]string, was Report) State {
	reports := make(map[uuid.UUID]Report)
	s := State{Members: make(Report)}
	for key, text := range keys {
		id, err := uuid.Parse(strings.TrimPrefix(key, root))
		if err != nil {
			continue
		}
		reports[id], s.Hosts = Parse(text), append(s.Hosts, id)
	}
	for router, members := range was {
		s.Members[router] = members
	}
	for _, r := range reports {
		for router := range r {
			if members, ok := reports[s.Elected(router)][router]; ok {
				s.Members[router] = members
			}
		}
	}
	return s
}

// Elected is the host that checks from a router: all come to the same choice, and when a host goes, only what it checked goes to
// others. Nil: there is none.
func (s *State) Elected(router uuid.UUID) (best uuid.UUID) {
	var most uint64
	for _, host := range s.Hosts {
		h := fnv.New64a()
		h.Write(host[:])
		h.Write(router[:])
		if sum := h.Sum64(); best == uuid.Nil || sum > most || sum == most && host.String() > best.String() {
			best, most = host, sum
		}
	}
	return best
}

// Port is the port by which a router's checks come in and their answers go out.
func Port(router uuid.UUID) uuid.UUID { return uuid.NewSHA1(router, []byte("health")) }

// Interface is that port's on the elected host.
func Interface(router uuid.UUID) string {
	p := Port(router)
	return "vh-" + hex.EncodeToString(p[:6])
}

// Where checks come from: they leave the router with its own address on the member's link, and with a source port from PortLow
// on, by which answers are told from what is for the router itself.
const PortLow = 64512

// Source addresses before that.
var (
	Source4 = netip.MustParseAddr("169.254.254.2")
	Source6 = netip.MustParseAddr("fdff:7669:6164:ff::2")
)

// MAC of the checks' interface.
var MAC = [6]byte{0x02, 'h', 'e', 'a', 'l', 't'}
