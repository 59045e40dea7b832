package sim

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// describe is one line about a frame.
func describe(frame []byte) string {
	if h, _, err := replicate.Parse(frame); err == nil {
		return fmt.Sprintf("message %d of kind %d, %d in it", h.Seq, h.Kind, h.Count)
	}
	p, bad := packet.Parse(frame, 0)
	if bad != drop.None {
		return bad.String()
	}
	k := &p.Key
	text := fmt.Sprintf("%s > %s ", k.EthSrc, k.EthDst)
	if a, ok := p.ARP(); ok {
		if a.Op == packet.ARPRequest {
			return text + fmt.Sprintf("arp who has %s, tell %s", a.TPA, a.SPA)
		}
		return text + fmt.Sprintf("arp %s is at %s", a.SPA, a.SHA)
	}
	text += k.Text(match.All &^ (match.InPort | match.EthSrc | match.EthDst | match.TOS))
	if f := p.TCPFlags(); f != 0 {
		text += fmt.Sprintf(" flags %#x", f)
	}
	if n := packetID(&p); n != 0 {
		text += " " + number(n)
	}
	return text
}

// number is how a packet is called.
func number(n uint64) string {
	kind := "request"
	if isReply(n) {
		kind = "reply"
	}
	return fmt.Sprintf("[%s %d.%d]", kind, n>>16, n&0xffff>>1)
}

func indent(n *trace.Node) string {
	var b bytes.Buffer
	_ = n.Render(&b) // a buffer does not fail
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "\n"+strings.Repeat(" ", 17))
}
