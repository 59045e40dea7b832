package state_test

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/arp"
)

var (
	bridge, p1, p2 = uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	m1, m2         = match.MAC{2, 1}, match.MAC{2, 2}
	a1             = match.AddrFrom(netip.MustParseAddr("10.0.0.1"))
)

func nthAddr(i int) match.Addr {
	return match.AddrFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
}

func setup(change func(*state.Config)) (*state.Tables, *clock.Manual) {
	cfg, clk := state.DefaultConfig(), &clock.Manual{}
	if change != nil {
		change(&cfg)
	}
	return state.New(cfg, clk), clk
}

func TestMACMoves(t *testing.T) {
	s, _ := setup(nil)
	for _, step := range []struct {
		port uuid.UUID
		news bool
	}{{p1, true}, {p1, false}, {p2, true}, {p1, true}} {
		tg, news, _ := s.LearnMAC(bridge, 7, m1, step.port)
		if want := (tag.Tag{Kind: tag.MACEntry, ID: bridge, MAC: m1, VLAN: 7}); news != step.news || tg != want {
			t.Errorf("LearnMAC at %v = %v %v", step.port, tg, news)
		}
		if at, ok := s.MAC(bridge, 7, m1); !ok || at != step.port {
			t.Errorf("at %v, want %v", at, step.port)
		}
	}
	if _, ok := s.MAC(bridge, 0, m1); ok {
		t.Error("found in another VLAN")
	}
}

func TestMACExpiresAfterItsLastFlow(t *testing.T) {
	s, clk := setup(nil)
	tg, _, _ := s.LearnMAC(bridge, 0, m1, p1)
	h, _ := s.Hold(&tg)
	clk.Advance(time.Hour)
	if _, gone := s.Tick(); len(gone) != 0 {
		t.Fatalf("expired while a flow held it: %v", gone)
	}
	s.Release(&tg, h)
	clk.Advance(15*time.Second - 1)
	if _, gone := s.Tick(); len(gone) != 0 {
		t.Fatalf("expired early: %v", gone)
	}
	clk.Advance(1)
	if _, gone := s.Tick(); !slices.Equal(gone, []tag.Tag{tg}) {
		t.Fatalf("gone %v, want %v", gone, tg)
	}
	if _, ok := s.MAC(bridge, 0, m1); ok {
		t.Error("still there")
	}
}

func TestMACBoundPerPort(t *testing.T) {
	s, _ := setup(func(c *state.Config) { c.MAC.MaxPerPort = 3 })
	for i := range 5 {
		if _, news, _ := s.LearnMAC(bridge, 0, match.MAC{2, byte(i)}, p1); news != (i < 3) {
			t.Errorf("%d: news %v", i, news)
		}
	}
	if _, news, _ := s.LearnMAC(bridge, 0, match.MAC{2, 9}, p2); !news {
		t.Error("one port's bound is the other's")
	}
	if got := s.Stats(); got.MACs != 4 || got.RefusedMACs != 2 {
		t.Errorf("%+v", got)
	}
	if gone := s.Forget(p1); len(gone) != 3 {
		t.Errorf("forgot %v", gone)
	}
	if _, news, _ := s.LearnMAC(bridge, 0, m1, p1); !news {
		t.Error("no room after Forget")
	}
}

func TestResolve(t *testing.T) {
	s, clk := setup(nil)
	if !asks(s, p1, a1) || asks(s, p1, a1) {
		t.Fatal("want one request for two callers")
	}
	if tg, news, _ := s.LearnNeighbour(p1, a1, m1, p1); !news || tg != (tag.Tag{Kind: tag.Neighbour, ID: p1, Addr: a1}) {
		t.Errorf("LearnNeighbour = %v %v", tg, news)
	}
	if m, ok, failed := s.Neighbour(p1, a1); m != m1 || !ok || failed {
		t.Errorf("Neighbour = %v %v %v", m, ok, failed)
	}
	if asks(s, p1, a1) {
		t.Error("asks for what is known")
	}
	if _, news, _ := s.LearnNeighbour(p1, a1, m1, p1); news {
		t.Error("a confirmation is no news")
	}
	if _, news, _ := s.LearnNeighbour(p1, a1, m2, p1); !news {
		t.Error("another MAC is news")
	}
	clk.Advance(89 * time.Second)
	if ask, gone := s.Tick(); len(ask)+len(gone) != 0 {
		t.Errorf("unused and stale: ask %v, gone %v", ask, gone)
	}
	clk.Advance(time.Second)
	if ask, gone := s.Tick(); len(ask) != 0 || len(gone) != 1 {
		t.Errorf("expired: ask %v, gone %v", ask, gone)
	}
}

func TestUnanswered(t *testing.T) {
	s, clk := setup(nil)
	s.Resolve(p1, a1, p1)
	last, asked := int64(0), 1
	var changed []tag.Tag
	for clk.Now() < int64(60*time.Second) {
		clk.Advance(100 * time.Millisecond)
		var ask []arp.Key
		ask, changed = s.Tick()
		if len(ask) == 0 {
			continue
		}
		asked++
		if gap := time.Duration(clk.Now() - last); gap < 7500*time.Millisecond || gap > 12600*time.Millisecond {
			t.Errorf("asked again after %v", gap)
		}
		last = clk.Now()
	}
	if asked < 5 || asked > 8 {
		t.Errorf("asked %d times in 60 s", asked)
	}
	if _, ok, failed := s.Neighbour(p1, a1); ok || !failed || len(changed) != 1 {
		t.Errorf("after 60 s: ok %v, failed %v, changed %v", ok, failed, changed)
	}
	if asks(s, p1, a1) {
		t.Error("asks for what has just failed")
	}
	clk.Advance(10 * time.Second)
	if _, changed := s.Tick(); len(changed) != 1 {
		t.Errorf("changed %v", changed)
	}
	if !asks(s, p1, a1) {
		t.Error("does not try again")
	}
}

// A port counts as asked from until each address is known, has failed or is not asked for any more.
func TestAsked(t *testing.T) {
	s, clk := setup(nil)
	want := func(what string, ports ...uuid.UUID) {
		t.Helper()
		if got := s.Asked(); len(got) != len(ports) || slices.ContainsFunc(ports, func(p uuid.UUID) bool { _, ok := got[p]; return !ok }) {
			t.Errorf("%s: %v, want %v", what, got, ports)
		}
	}
	want("nothing")
	s.Resolve(p1, a1, p1)
	s.Resolve(p1, nthAddr(1), p1)
	s.Resolve(p2, a1, p1)
	want("three addresses", p1, p2)
	s.LearnNeighbour(p1, a1, m1, p1)
	want("one has answered", p1, p2)
	if tg, was := s.StopAsking(p1, nthAddr(1)); !was || tg != (tag.Tag{Kind: tag.Neighbour, ID: p1, Addr: nthAddr(1)}) {
		t.Errorf("StopAsking = %v %v", tg, was)
	}
	want("another is not asked for", p2)
	if _, was := s.StopAsking(p1, nthAddr(1)); was {
		t.Error("stopped twice")
	}
	if !asks(s, p1, nthAddr(1)) {
		t.Error("it is not asked for anew")
	}
	clk.Advance(60 * time.Second)
	s.Tick()
	want("all have failed")
}

func TestStaleIsRefreshedWhileUsed(t *testing.T) {
	s, clk := setup(nil)
	tg, _, _ := s.LearnNeighbour(p1, a1, m1, p1)
	s.Hold(&tg)
	clk.Advance(60 * time.Second)
	ask, gone := s.Tick()
	if want := (arp.Key{ID: p1, Addr: a1}); !slices.Equal(ask, []arp.Key{want}) || len(gone) != 0 {
		t.Fatalf("ask %v, gone %v", ask, gone)
	}
	if _, ok, _ := s.Neighbour(p1, a1); !ok {
		t.Error("a stale neighbour does not serve")
	}
	if ask, _ := s.Tick(); len(ask) != 0 {
		t.Error("asks twice")
	}
	if _, news, _ := s.LearnNeighbour(p1, a1, m1, p1); news {
		t.Error("a confirmation is no news")
	}
	clk.Advance(59 * time.Second)
	if ask, gone := s.Tick(); len(ask)+len(gone) != 0 {
		t.Errorf("confirmed: ask %v, gone %v", ask, gone)
	}
	clk.Advance(31 * time.Second) // unanswered now
	if _, gone := s.Tick(); !slices.Equal(gone, []tag.Tag{tg}) {
		t.Errorf("gone %v", gone)
	}
}

func TestAnnouncementsDoNotCrowdOutAnswers(t *testing.T) {
	s, _ := setup(func(c *state.Config) { c.ARP.MaxPerPort = 8 })
	for i := range 20 {
		s.LearnNeighbour(p1, nthAddr(i), m2, p1)
	}
	if got := s.Stats(); got.Neighbours != 4 || got.RefusedNeighbours != 16 {
		t.Errorf("%+v", got)
	}
	s.Resolve(p1, a1, p1)
	if _, news, _ := s.LearnNeighbour(p1, a1, m1, p1); !news {
		t.Error("an answer was refused")
	}
}

// asks reports whether an address is asked for now.
func asks(s *state.Tables, port uuid.UUID, a match.Addr) bool {
	send, _ := s.Resolve(port, a, port)
	return send
}

// TestNeighboursAreBoundedPerTeacher: what one port announces, or waits for, on a link takes nothing from another port on the same link.
func TestNeighboursAreBoundedPerTeacher(t *testing.T) {
	s, _ := setup(func(c *state.Config) { c.ARP.MaxPerPort, c.ARP.MaxPending = 8, 3 })
	router := uuid.UUID{9}
	for i := range 20 {
		_, _, ok := s.LearnNeighbour(router, nthAddr(i), m1, p1)
		_, _, heard := s.LearnBridgeNeighbour(bridge, 0, nthAddr(i), m1, p1)
		_, asked := s.Resolve(router, nthAddr(100+i), p1)
		if ok != (i < 4) || heard != (i < 4) || asked != (i < 3) {
			t.Errorf("%d: taught %v, %v, waits %v", i, ok, heard, asked)
		}
	}
	for i := range 4 {
		_, _, ok := s.LearnNeighbour(router, nthAddr(200+i), m2, p2)
		_, _, heard := s.LearnBridgeNeighbour(bridge, 0, nthAddr(200+i), m2, p2)
		if !ok || !heard {
			t.Errorf("the other port's %d: taught %v, %v", i, ok, heard)
		}
	}
	if send, ok := s.Resolve(router, nthAddr(300), p2); !send || !ok {
		t.Error("the other port must not wait")
	}
	if _, ok := s.Resolve(router, nthAddr(100), p2); !ok {
		t.Error("an address that is asked for already is refused")
	}
	if st := s.Stats(); st.RefusedNeighbours != 16+17 || st.RefusedBridges != 16 {
		t.Errorf("%+v", st)
	}
	s.Forget(p1)
	if _, ok := s.Resolve(router, nthAddr(400), p1); !ok {
		t.Error("what a port waits for is not forgotten with it")
	}
	if st := s.Stats(); st.Neighbours != 4 || st.BridgeNeighbours != 4 {
		t.Errorf("%+v", st)
	}
}

func TestBridgeNeighbours(t *testing.T) {
	s, clk := setup(nil)
	s.LearnBridgeNeighbour(bridge, 0, a1, m1, p1)
	if m, ok := s.BridgeNeighbour(bridge, 0, a1); !ok || m != m1 {
		t.Errorf("BridgeNeighbour = %v %v", m, ok)
	}
	if _, ok, _ := s.Neighbour(bridge, a1); ok {
		t.Error("a bridge's neighbour is a port's")
	}
	clk.Advance(90 * time.Second)
	if ask, gone := s.Tick(); len(ask) != 0 || len(gone) != 1 {
		t.Errorf("ask %v, gone %v", ask, gone)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s, _ := setup(nil)
	s.LearnMAC(bridge, 0, m1, p1)
	s.LearnNeighbour(p1, a1, m1, p1)
	if n := testing.AllocsPerRun(100, func() {
		s.MAC(bridge, 0, m1)
		s.Neighbour(p1, a1)
		s.Neighbour(p2, a1)
		s.BridgeNeighbour(bridge, 0, a1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOneRequestOverAllWorkers(t *testing.T) {
	s, _ := setup(nil)
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				if asks(s, p1, nthAddr(i)) {
					sent.Add(1)
				}
				s.Neighbour(p1, nthAddr(i))
				s.LearnMAC(bridge, 0, match.MAC{2, byte(i)}, p1)
			}
		})
	}
	wg.Go(func() {
		for range 100 {
			s.Tick()
		}
	})
	wg.Wait()
	if sent.Load() != 200 {
		t.Errorf("%d requests for 200 addresses", sent.Load())
	}
}

// What another host has learnt is an answer: this one asks no more, and does not take for failed what has answered there.
func TestAnotherHostsAnswer(t *testing.T) {
	s, clk := setup(nil)
	tg := tag.Tag{Kind: tag.Neighbour, ID: p1, Addr: a1}
	for _, failed := range []bool{false, true} {
		s.Resolve(p1, a1, p1)
		if failed {
			clk.Advance(60 * time.Second)
			s.Tick()
		}
		if !s.SetFar(tg, state.Learnt{MAC: m1}) {
			t.Error("the answer is no news")
		}
		clk.Advance(60 * time.Second)
		if ask, changed := s.Tick(); len(s.Asked())+len(ask)+len(changed) != 0 {
			t.Errorf("failed %v: asked from %v: %v, changed %v", failed, s.Asked(), ask, changed)
		}
		s.DropFar(tg)
		if _, ok, failed := s.Neighbour(p1, a1); ok || failed {
			t.Errorf("when the other host has forgotten: known %v, failed %v", ok, failed)
		}
	}
	s.LearnNeighbour(p1, a1, m1, p1)
	s.Hold(&tg)
	clk.Advance(60 * time.Second)
	s.Tick()
	if s.SetFar(tg, state.Learnt{MAC: m1}); len(s.Asked()) != 1 {
		t.Error("what is known here is not asked for again")
	}
}
