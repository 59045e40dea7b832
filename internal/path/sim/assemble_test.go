package sim

import (
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// TestAssemble: done one after the other, the actions bring out of each port the header that its
// branch had, whatever branches come together.
func TestAssemble(t *testing.T) {
	received := header{ethSrc: match.MAC{2, 1}, ethDst: match.MAC{2, 2}}
	macs := rapid.SampledFrom([]match.MAC{{2, 1}, {2, 2}, {2, 3}, {2, 4}})
	rapid.Check(t, func(t *rapid.T) {
		var c Context
		c.Packet.Key.EthSrc, c.Packet.Key.EthDst = received.ethSrc, received.ethDst
		want := map[uuid.UUID]header{}
		for i := range rapid.IntRange(1, 8).Draw(t, "outputs") {
			o := output{header: received, port: uuid.UUID{byte(i)}}
			o.decs = rapid.Uint8Range(0, 3).Draw(t, "decs")
			if rapid.Bool().Draw(t, "src") {
				o.ethSrc, o.written = macs.Draw(t, "ethSrc"), o.written|match.EthSrc
			}
			if rapid.Bool().Draw(t, "dst") {
				o.ethDst, o.written = macs.Draw(t, "ethDst"), o.written|match.EthDst
			}
			c.scratch.outs = append(c.scratch.outs, o)
			want[o.port] = o.header
		}
		c.finish()
		// Another packet of the flow, which differs in what was not read.
		now := received
		if c.Mask&match.EthSrc == 0 {
			now.ethSrc = match.MAC{4}
		}
		if c.Mask&match.EthDst == 0 {
			now.ethDst = match.MAC{6}
		}
		other := now
		for _, a := range c.Actions {
			switch a.Op {
			case action.SetEthSrc:
				now.ethSrc = a.MAC
			case action.SetEthDst:
				now.ethDst = a.MAC
			case action.DecTTL:
				now.decs++
			case action.Forward:
				w, ok := want[a.VPort]
				if w.written&match.EthSrc == 0 {
					w.ethSrc = other.ethSrc
				}
				if w.written&match.EthDst == 0 {
					w.ethDst = other.ethDst
				}
				if w.written = 0; !ok || now != w {
					t.Fatalf("port %v: %+v, want %+v; actions %+v", a.VPort[0], now, w, c.Actions)
				}
				delete(want, a.VPort)
			}
		}
		if len(want) != 0 {
			t.Fatalf("no output for %v", want)
		}
	})
}
