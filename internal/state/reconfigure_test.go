package state_test

import (
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// Lower bounds refuse what is new and take nothing away; times count for what is there.
func TestReconfigure(t *testing.T) {
	s, clk := setup(nil)
	cfg := state.DefaultConfig()
	macs := []match.MAC{{2, 1}, {2, 2}, {2, 3}}
	s.LearnMAC(bridge, 0, macs[0], p1)
	s.LearnMAC(bridge, 0, macs[1], p1)
	s.LearnNeighbour(p1, nthAddr(1), m1, p1)
	connect := func(port uint16) conntrack.Verdict {
		tu := match.Tuple{Src: nthAddr(1), Dst: nthAddr(2), SrcPort: port, DstPort: 53, Proto: 17}
		return s.AddConnection(conntrack.Conn{Kind: tag.Connection, Device: bridge, Orig: tu, Reply: tu.Reverse(), Owner: p1})
	}
	if connect(1) != conntrack.Added || connect(2) != conntrack.Added {
		t.Fatal("connections are refused")
	}

	cfg.MAC.MaxPerPort, cfg.Conntrack.MaxPerOwner, cfg.ARP.MaxPerPort = 1, 1, 1
	s.Reconfigure(cfg)
	if _, news, _ := s.LearnMAC(bridge, 0, macs[2], p1); news {
		t.Error("a MAC beyond the new bound is learnt")
	}
	if _, ok := s.MAC(bridge, 0, macs[1]); !ok {
		t.Error("a MAC that was known is gone")
	}
	if _, news, _ := s.LearnNeighbour(p1, nthAddr(2), m1, p1); news {
		t.Error("a neighbour beyond the new bound is learnt")
	}
	if connect(3) != conntrack.Full {
		t.Error("a connection beyond the new bound is added")
	}
	if st := s.Stats(); st.MACs != 2 || st.Connections != 2 || st.Neighbours != 1 {
		t.Errorf("%+v", st)
	}

	cfg.MAC.Expire, cfg.Conntrack.UDPNew, cfg.ARP.Expire = 3*time.Second, 4*time.Second, 5*time.Second
	s.Reconfigure(cfg)
	gone := func(at time.Duration, want state.Stats) {
		t.Helper()
		clk.Advance(at - time.Duration(clk.Now()))
		for range 8 { // a Tick looks at an eighth of the connections
			s.Tick()
		}
		if st := s.Stats(); st.MACs != want.MACs || st.Connections != want.Connections || st.Neighbours != want.Neighbours {
			t.Errorf("after %v: %+v, want %+v", at, st, want)
		}
	}
	gone(3*time.Second-1, state.Stats{MACs: 2, Connections: 2, Neighbours: 1})
	gone(3*time.Second, state.Stats{Connections: 2, Neighbours: 1})
	gone(4*time.Second, state.Stats{Neighbours: 1})
	gone(5*time.Second, state.Stats{})

	s.Reconfigure(state.DefaultConfig()) // and up again
	if _, news, _ := s.LearnMAC(bridge, 0, macs[2], p1); !news {
		t.Error("a MAC within the bound is not learnt")
	}
}
