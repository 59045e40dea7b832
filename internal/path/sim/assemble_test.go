package sim

import (
	"iter"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// TestAssemble: done one after the other, the actions bring out of each port the header that its
// branch had, whatever branches come together.
func TestAssemble(t *testing.T) {
	addrs := rapid.SampledFrom([]match.Addr{{1}, {2}, {3}})
	ports := rapid.SampledFrom([]uint16{1, 2, 3})
	macs := rapid.SampledFrom([]match.MAC{{2, 1}, {2, 2}, {2, 3}, {2, 4}})
	received := header{ethSrc: match.MAC{2, 1}, ethDst: match.MAC{2, 2}, src: match.Addr{1}, dst: match.Addr{2}, srcPort: 1, dstPort: 2}
	rapid.Check(t, func(t *rapid.T) {
		var c Context
		k := &c.Packet.Key
		k.EthSrc, k.EthDst, k.Src, k.Dst, k.SrcPort, k.DstPort =
			received.ethSrc, received.ethDst, received.src, received.dst, received.srcPort, received.dstPort
		want := map[uuid.UUID]header{}
		for i := range rapid.IntRange(1, 8).Draw(t, "outputs") {
			o := output{header: received, port: uuid.UUID{byte(i)}}
			o.decs = rapid.Uint8Range(0, 3).Draw(t, "decs")
			for f := range fieldsOf(&o.header) {
				if !rapid.Bool().Draw(t, f.String()) {
					continue
				}
				o.written |= f
				switch f {
				case match.EthSrc:
					o.ethSrc = macs.Draw(t, "mac")
				case match.EthDst:
					o.ethDst = macs.Draw(t, "mac")
				case match.Src:
					o.src = addrs.Draw(t, "address")
				case match.Dst:
					o.dst = addrs.Draw(t, "address")
				case match.SrcPort:
					o.srcPort = ports.Draw(t, "port")
				case match.DstPort:
					o.dstPort = ports.Draw(t, "port")
				}
			}
			c.scratch.outs = append(c.scratch.outs, o)
			want[o.port] = o.header
		}
		c.finish()
		// Another packet of the flow, which differs in what was not read.
		other := header{ethSrc: match.MAC{4}, ethDst: match.MAC{6}, src: match.Addr{9}, dst: match.Addr{8}, srcPort: 9, dstPort: 8}
		copyFields(&other, &received, c.Mask)
		now := other
		for _, a := range c.Actions {
			switch a.Op {
			case action.SetEthSrc:
				now.ethSrc = a.MAC
			case action.SetEthDst:
				now.ethDst = a.MAC
			case action.SetSrc:
				now.src = a.Addr
			case action.SetDst:
				now.dst = a.Addr
			case action.SetSrcPort:
				now.srcPort = a.Value
			case action.SetDstPort:
				now.dstPort = a.Value
			case action.DecTTL:
				now.decs++
			case action.Forward:
				w, ok := want[a.VPort]
				copyFields(&w, &other, match.All&^w.written)
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

// fieldsOf goes through the fields of a header that can be written, with a function that copies each from another.
func fieldsOf(h *header) iter.Seq2[match.Mask, func(from *header)] {
	return func(yield func(match.Mask, func(*header)) bool) {
		_ = yield(match.EthSrc, func(f *header) { h.ethSrc = f.ethSrc }) &&
			yield(match.EthDst, func(f *header) { h.ethDst = f.ethDst }) &&
			yield(match.Src, func(f *header) { h.src = f.src }) &&
			yield(match.Dst, func(f *header) { h.dst = f.dst }) &&
			yield(match.SrcPort, func(f *header) { h.srcPort = f.srcPort }) &&
			yield(match.DstPort, func(f *header) { h.dstPort = f.dstPort })
	}
}

func copyFields(to, from *header, m match.Mask) {
	for f, take := range fieldsOf(to) {
		if m&f != 0 {
			take(from)
		}
	}
}
