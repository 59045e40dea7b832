package state_test

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// connect translates one more connection to dst behind a1; the port, or 0.
func connect(t *testing.T, s *state.Tables, n uint16, dst byte, lo, hi uint16) uint16 {
	t.Helper()
	orig := match.Tuple{Src: nthAddr(int(n)), Dst: match.Addr{15: dst}, SrcPort: 1000, DstPort: 80, Proto: 6}
	for range 2 {
		port, exhausted := s.FreePort(bridge, &orig, a1, lo, hi, 0)
		if port == 0 && exhausted {
			return 0
		}
		if port == 0 {
			s.LeasePorts(bridge, a1, lo, hi, 0, func(tag.Tag) {})
			continue
		}
		reply := match.Tuple{Src: orig.Dst, Dst: a1, SrcPort: 80, DstPort: port, Proto: 6}
		if v := s.AddConnection(conntrack.Conn{Kind: tag.Translation, Device: bridge, Orig: orig, Reply: reply, Owner: p1}); v != conntrack.Added {
			t.Fatalf("port %d: %v", port, v)
		}
		return port
	}
	return 0
}

// TestPortsAreUsedAgain: all of them for one destination, then none, and all again for another.
func TestPortsAreUsedAgain(t *testing.T) {
	s, _ := setup(nil)
	for dst := byte(1); dst <= 2; dst++ {
		seen := map[uint16]bool{}
		for i := range uint16(100) {
			port := connect(t, s, i, dst, 5000, 5099)
			if port < 5000 || port > 5099 || seen[port] {
				t.Fatalf("connection %d to %d: port %d", i, dst, port)
			}
			seen[port] = true
		}
		if port := connect(t, s, 100, dst, 5000, 5099); port != 0 {
			t.Errorf("one too many: port %d", port)
		}
	}
}

func TestConnectionsAreBoundedPerOwner(t *testing.T) {
	s, _ := setup(func(c *state.Config) { c.Conntrack.MaxPerOwner = 2 })
	add := func(n byte, own [16]byte) conntrack.Verdict {
		o := match.Tuple{Src: match.Addr{n}, Proto: 17}
		return s.AddConnection(conntrack.Conn{Kind: tag.Connection, Device: bridge, Orig: o, Reply: o.Reverse(), Owner: own})
	}
	for i, want := range []conntrack.Verdict{conntrack.Added, conntrack.Added, conntrack.Full} {
		if got := add(byte(i+1), p1); got != want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if add(9, p2) != conntrack.Added {
		t.Error("one owner's bound is the other's")
	}
	if st := s.Stats(); st.Connections != 3 || st.RefusedConnections != 1 {
		t.Errorf("%+v", st)
	}
	if gone := s.Forget(p1); len(gone) != 4 || s.Stats().Connections != 1 {
		t.Errorf("forgot %v", gone)
	}
}
