package sim

import (
	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// Hint is what an installed flow does to packets like the one at hand: a new connection is translated
// likewise if it may, so that an agent learns again what the one before it had decided.
type Hint action.Physical

// answer reports whether the flow, of a connection that nobody knows, is taken for that of its answers, if rules allow it to have begun the
// other way: an echo reply, or from a lower port, where services are, to a higher one. What this is wrong about the agent keeps elsewhere
// (state.UntoldConnections).
func (h Hint) answer(t *match.Tuple) bool { return h != nil && t.SrcPort < t.DstPort }

// addr is the source address, or the destination, to which the flow translates.
func (h Hint) addr(source bool) (a match.Addr, ok bool) {
	op := action.SetDst
	if source {
		op = action.SetSrc
	}
	for i := range h {
		if h[i].Op == op {
			return h[i].Addr, true
		}
	}
	return a, false
}

// dstPort is the destination port to which the flow translates; 0: it does not.
func (h Hint) dstPort() (port uint16) {
	for i := range h {
		if h[i].Op == action.SetDstPort {
			port = h[i].Value
		}
	}
	return port
}

// port is the source port, or identifier, to which the flow translates together with addr; 0: it does not.
func (h Hint) port(addr match.Addr, proto uint8) (port uint16) {
	op, is := action.SetSrcPort, false
	if proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 {
		op = action.SetDstPort
	}
	for i := range h {
		switch a := &h[i]; a.Op {
		case action.SetSrc:
			is = a.Addr == addr
		case op:
			port = a.Value
		}
	}
	if !is {
		return 0
	}
	return port
}
