package sim

import (
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// TestReturn: what answers a packet that went through is a return, on the device that saw it and on no other; so is an
// error that quotes one. What was proposed by a branch that did not arrive is forgotten.
func TestReturn(t *testing.T) {
	tables := state.New(state.DefaultConfig(), &clock.Manual{})
	a, b := match.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 1}, match.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 2}
	there := packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: a, Dst: b}, 1000, 53, nil)
	back := packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: b, Dst: a}, 53, 1000, nil)
	v, _ := packet.Parse(there, 1)
	quote := packet.BuildTimeExceeded(nil, &v, match.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 9})
	here, elsewhere := uuid.UUID{1}, uuid.UUID{2}
	ask := func(frame []byte, device uuid.UUID, arrives bool) bool {
		var c Context
		v, _ := packet.Parse(frame, 1)
		c.State, c.Packet = tables, v
		br := c.received()
		is := c.isReturn(&br, device)
		if arrives {
			c.scratch.outs = append(c.scratch.outs, output{br.header, uuid.UUID{3}, br.proposal})
		}
		c.finish()
		for _, l := range c.Learn {
			if l.Kind == LearnConnection {
				tables.AddConnection(conntrack.Conn{Kind: l.Conn, Device: l.Device, Orig: l.Orig, Reply: l.Reply, Owner: l.Port})
			}
		}
		return is
	}
	for i, step := range []struct {
		frame   []byte
		device  uuid.UUID
		arrives bool
		want    bool
	}{
		{there, here, false, false},
		{back, here, false, false}, // nobody has seen the first one arrive
		{quote, here, false, false},
		{there, here, true, false},
		{there, here, true, false},
		{back, here, true, true},
		{quote, here, true, true},
		{back, elsewhere, false, false},
	} {
		if got := ask(step.frame, step.device, step.arrives); got != step.want {
			t.Errorf("step %d: return %v", i, got)
		}
	}
	if n := tables.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}
