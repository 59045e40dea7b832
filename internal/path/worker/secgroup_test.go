package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

const secured = `
bridge net
vm web net 02:00:00:00:00:0a 10.0.1.5
vm cli net 02:00:00:00:00:0b 10.0.1.6
vm other net 02:00:00:00:00:0c 10.0.1.7
secure web
secure cli
secure other
groups web web
groups cli cli
groups other cli
allow web in proto=6 ports=80
allow web in proto=1 remote=cli
allow web out
allow cli out
`

const (
	request  = "cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=1000>80"
	response = "web tcp eth=web>cli ip=10.0.1.5>10.0.1.6 ports=80>1000 flags=SA"
	more     = "cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=1000>80 flags=A"
	echo     = "cli echo eth=cli>web ip=10.0.1.6>10.0.1.5 id=1"
	echo2    = "other echo eth=other>web ip=10.0.1.7>10.0.1.5 id=1"
	wasCut   = "web tcp eth=web>cli ip=10.0.1.5>10.0.1.6 ports=80>1000 flags=A"
)

// changed publishes a change of the topology that the test has made, as the agent does.
func (r *rig) changed(tags ...tag.Tag) {
	r.w.Do(func() { r.w.Invalidate(tags) })
	r.turn()
}

// TestRevokedRuleCutsConnections: what a rule has let be established ends with the rule, both ways; what another
// rule allows goes on. When the rule is there again, so is the connection.
func TestRevokedRuleCutsConnections(t *testing.T) {
	r := newRig(t, secured, Config{})
	r.in(request)
	r.turn()
	r.in(response, echo)
	r.turn()
	r.in(more)
	r.turn()
	if got := r.got(); len(got) != 4 {
		t.Fatalf("delivered %v", got)
	}
	group := tag.Tag{Kind: tag.Chain, ID: pathtest.ID("web")}
	before := *r.topo.Security[group.ID]
	r.topo.Revoke("web-1")
	r.changed(group)
	r.in(more, wasCut, echo)
	r.turn()
	r.expect("web < ") // the ping
	if c := r.w.Counts(); c.Dropped[drop.GroupDrop] != 1 || c.Dropped[drop.ConnRevoked] != 1 {
		t.Errorf("dropped %v", c.Dropped)
	}
	r.in(more, wasCut) // by flows now: both ways nothing comes up any more
	r.turn()
	r.expect()
	if n := r.w.Counts().Dropped[drop.ConnRevoked]; n != 1 {
		t.Errorf("%d packets of the revoked connection came up", n)
	}
	r.topo.Security[group.ID] = &before
	r.changed(group)
	r.in(more, wasCut)
	r.turn()
	r.expect("web < ", "cli < ")
}

// TestRevokedConnectionIsForgotten: flows that drop do not keep it, so that its addresses and ports can be used again.
func TestRevokedConnectionIsForgotten(t *testing.T) {
	r := newRig(t, secured, Config{})
	r.in("web udp eth=web>cli ip=10.0.1.5>10.0.1.6 ports=7>7") // cli lets nothing in
	r.in("cli udp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=7>7") // web neither
	r.turn()
	r.expect()
	if n := r.tables.Stats().Connections; n != 0 {
		t.Errorf("%d connections of packets that were dropped", n)
	}
	r.in(request)
	r.turn()
	r.topo.Revoke("web-1")
	r.changed(tag.Tag{Kind: tag.Chain, ID: pathtest.ID("web")})
	for range 20 { // longer than a connection lives that nobody has answered
		r.in(more)
		r.turn()
		r.advance(20 * time.Second)
	}
	if n := r.tables.Stats().Connections; n != 0 {
		t.Errorf("%d connections are kept by what does not pass", n)
	}
}

// TestMembershipConcernsItsFlowsOnly: when an address leaves a group, the flows of that address are decided again, and no others.
func TestMembershipConcernsItsFlowsOnly(t *testing.T) {
	r := newRig(t, secured, Config{})
	r.in(request, echo, echo2)
	r.turn()
	r.expect("web < ", "web < ", "web < ")
	flows := r.flows()
	cli := *r.topo.Ports[pathtest.ID("cli")]
	cli.SecurityGroups = nil // leaves the group; what else that changes is not told here
	r.topo.Ports[cli.ID] = &cli
	r.topo.Members(pathtest.ID("cli"))
	r.changed(tag.Tag{Kind: tag.Group, ID: pathtest.ID("cli"), Addr: match.AddrFrom(cli.Addrs[0].Addr())})
	if n := r.flows(); n != flows-2 {
		t.Errorf("%d flows of %d are left, want all but that of the address, and that of the answers", n, flows)
	}
	r.in(echo, echo2, more)
	r.turn()
	r.expect("web < ", "web < ")
	if n := r.w.Counts().Dropped[drop.GroupDrop]; n != 1 {
		t.Errorf("%d dropped", n)
	}
}

// TestOddPackets: what nmap sends with -sN, -sF and -sX begins nothing, installs nothing, and does not stand in the way of a SYN.
func TestOddPackets(t *testing.T) {
	r := newRig(t, secured, Config{})
	for _, flags := range []string{"", "F", "FPU", "SF", "R", "RA", "SA", "FA"} {
		r.in("cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=1000>80 flags=" + flags)
	}
	r.turn()
	r.expect()
	if n := r.w.Counts().Dropped[drop.ConnInvalid]; n != 8 {
		t.Errorf("%d of 8 invalid", n)
	}
	if f, c := r.flows(), r.tables.Stats().Connections; f != 0 || c != 0 {
		t.Errorf("%d flows, %d connections", f, c)
	}
	r.in(request)
	r.turn()
	r.expect("web < ")
	r.in("cli tcp eth=cli>web ip=10.0.1.6>10.0.1.5 ports=1001>80 flags=A") // -sA: as Linux, an older connection
	r.turn()
	r.expect("web < ")
}

// TestRevokedAfterRelearning: a connection that the next agent knows from its flows alone is judged as the one that it is, whichever of its
// flows are left and come first: the answers' could have begun one themselves.
func TestRevokedAfterRelearning(t *testing.T) {
	for name, order := range map[string]func(answers, rest []datapath.FlowInfo) []datapath.FlowInfo{
		"answers alone": func(a, _ []datapath.FlowInfo) []datapath.FlowInfo { return a },
		"answers first": func(a, r []datapath.FlowInfo) []datapath.FlowInfo { return append(a, r...) },
		"answers last":  func(a, r []datapath.FlowInfo) []datapath.FlowInfo { return append(r, a...) },
	} {
		t.Run(name, func(t *testing.T) { revokedAfterRelearning(t, secured, order) })
		t.Run(name+" to who has no groups", func(t *testing.T) {
			revokedAfterRelearning(t, strings.NewReplacer("secure cli\n", "", "groups cli cli\n", "", "remote=cli", "prefix=10.0.1.0/24").Replace(secured), order)
		})
	}
}

func revokedAfterRelearning(t *testing.T, network string, order func(answers, rest []datapath.FlowInfo) []datapath.FlowInfo) {
	r := newRig(t, network, Config{})
	r.in(request)
	r.turn()
	r.in(response, more, echo)
	r.turn()
	r.in("web icmp eth=web>cli ip=10.0.1.5>10.0.1.6 type=0 id=1")
	r.turn()
	r.got()
	var answers, rest []datapath.FlowInfo
	for _, f := range r.dump() {
		if f.Key.Src.String() == "10.0.1.5" {
			answers = append(answers, f)
		} else {
			rest = append(rest, f)
		}
	}
	if len(answers) != 2 || len(rest) != 2 {
		t.Fatalf("%d flows of answers, %d others", len(answers), len(rest))
	}
	r.start(Config{})
	found := order(answers, rest)
	if len(found) < len(answers)+len(rest) {
		for _, f := range rest {
			if err := r.dp.DelFlows([]match.Key{f.Key}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for tries, left := 0, found; len(left) > 0 && tries < 3; tries++ {
		left = r.w.Relearn(left)
	}
	r.w.Adopt(found)
	r.turn()
	if n := r.w.Flows().Stats().Adopted; n != uint64(len(found)) {
		t.Errorf("%d of %d flows adopted", n, len(found))
	}
	group := tag.Tag{Kind: tag.Chain, ID: pathtest.ID("web")}
	r.topo.Revoke("web-1") // TCP
	r.topo.Revoke("web-2") // ping
	r.changed(group)
	r.in(more, wasCut, "web icmp eth=web>cli ip=10.0.1.5>10.0.1.6 type=0 id=1")
	r.turn()
	r.expect()
	if n := r.w.Counts().Dropped[drop.ConnRevoked]; n != 2 {
		t.Errorf("dropped %v", r.w.Counts().Dropped)
	}
}
