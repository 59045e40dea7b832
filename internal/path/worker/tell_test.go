package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// A host that gets a port is told of its connections, no faster than it acknowledges; what is lost is sent again.
func TestTell(t *testing.T) {
	p := newPair(t, gateway)
	n := 0
	p.lose = func(s fake.Sent) bool { n++; return n%7 == 0 }
	for i := range 300 {
		p.h1.in(strings.Replace(aToWorld, "4000", fmt.Sprint(4000+i), 1) + " flags=S")
		p.turn()
	}
	p.turn()
	var conns []replicate.Conn
	p.h1.tables.Connections(func(c *conntrack.Conn, s conntrack.State) { conns = append(conns, replicate.Conn{Conn: *c, State: s}) })
	for range 4 * taleTurn { // what the packets themselves have told
		p.h1.clk.Advance(time.Duration(resendAfter))
		p.turn()
	}
	p.h2.start(Config{Host: hostIDs[1]})
	p.join(p.h2, p.h1, 1, func(name string) bool { return name != "world" })
	missed, most := -1, 0
	p.h1.w.Do(func() { p.h1.w.Tell(p.h1.topo.Snapshot.Hosts[hostIDs[1]].Tunnel, conns, func(m int) { missed = m }) })
	for range 4 * taleTurn {
		p.turn()
		most = max(most, p.h1.w.Unacknowledged())
		p.h1.clk.Advance(time.Duration(resendAfter))
	}
	if got := p.h2.tables.Stats().Connections; len(conns) == 0 || got != len(conns) || missed != 0 {
		t.Errorf("the host knows of %d of %d connections, %d messages are missing", got, len(conns), missed)
	}
	if most > taleWindow {
		t.Errorf("%d messages at a time", most)
	}
}

// An answer whose connection was told in a message that was lost has been taken for a beginning: what is told again puts it right.
// A connection that was moved takes the place of the old one.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name         string
		moved, again bool
		want         bool
	}{{"first", false, false, false}, {"again", false, true, true}, {"moved", true, false, true}} {
		p := newPair(t, gateway)
		p.h1.in(aToWorld + " flags=S")
		p.turn()
		var told conntrack.Conn
		p.h2.tables.Connections(func(c *conntrack.Conn, _ conntrack.State) { told = *c })
		orig := tag.Of(told.Kind, told.Device, &told.Orig)
		p.h2.tables.EndConnection(orig, told.Reply, nil)
		wrong := told
		wrong.Orig, wrong.Reply = told.Reply, told.Orig
		if v := p.h2.tables.AddConnection(wrong); v != conntrack.Added {
			t.Fatal(v)
		}
		p.h2.w.merge(&replicate.Conn{Conn: told, Moved: c.moved}, c.again, nil)
		if have, _, ok := p.h2.tables.GetConnection(orig); !ok || (have.Orig == told.Orig) != c.want {
			t.Errorf("%s: there is %+v", c.name, have)
		}
	}
}

// A host that begins anew among very many flows delays nobody: some are looked through at each turn, a packet that comes meanwhile is served in
// that very turn, and between two turns the worker does not wait.
func TestTellingIsPaced(t *testing.T) {
	const n = 20 * someFlows
	p := newPair(t, gateway)
	w := p.h1.w
	in := p.h1.topo.MustInject(aToWorld)
	k := in.View.Key
	k.InPort, _ = p.h1.ports.Local(pathtest.ID("a"))
	for i := range n {
		k.DstPort = uint16(1000 + i)
		w.flows.Add(&k, match.All, action.Physical{{Op: action.Output, Port: 99}}, nil, flow.Stateful)
	}
	if err := w.flows.Flush(); err != nil {
		t.Fatal(err)
	}
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	p.h2.sent = nil
	w.TellHost(p.h1.topo.Snapshot.Hosts[hostIDs[1]].Tunnel)
	turns := 0
	for ; len(w.peers.tales) > 0 && w.peers.tales[0].seeking; turns++ {
		p.h1.in(strings.Replace(aToWorld, "4000", fmt.Sprint(5000+turns), 1) + " flags=S")
		if err := w.Turn(0); err != nil {
			t.Fatal(err)
		}
		if got := p.h1.w.Counts().Waiting; got != 0 {
			t.Fatalf("%d packets wait", got)
		}
		if x := w.peers.tales; len(x) > 0 && x[0].seeking && !w.busy {
			t.Fatal("the worker would wait")
		}
	}
	if turns < n/someFlows {
		t.Errorf("all was looked through in %d turns", turns)
	}
	p.turn()
}
