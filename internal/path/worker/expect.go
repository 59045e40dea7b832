package worker

import (
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

// The flow of the answers to a new connection's first packet is installed together with that packet's own, so that they do not miss.
// It is decided as for any packet of its key. What nobody has sent yet is bounded by the port that caused it: beyond, and whenever
// the answer would do more than be forwarded, it is decided when it comes.

// expect has the flow of the answers installed to the packet at hand, if that has begun a connection and goes to one port of this host.
func (w *Worker) expect(m *datapath.Miss, d decision) {
	if !w.begun || d.result != sim.ResultForward || w.sim.UserSpace {
		return
	}
	by := m.Key.InPort
	k, ok := answerTo(&m.Key, d.actions)
	if !ok || int(k.ConnectionHash())%w.dp.Workers() != w.cfg.ID || w.flows.Expected(by) >= w.cfg.Expected {
		return
	}
	w.answer = k
	if _, ok := w.flows.Peek(&w.answer); !ok {
		w.guardedExpect(&w.answer, by)
	}
}

// expectFlow is expect, once it is known what answers look like.
func (w *Worker) expectFlow(k *match.Key, by uint32) {
	vport, ok := w.ports.Virtual(k.InPort)
	if !ok {
		return
	}
	v, ok := w.specimen(k)
	if !ok {
		return
	}
	tree := w.trace
	w.trace = nil // it is not of the packet that is watched
	d := w.decide(&v, vport, packet.GSO{})
	w.trace = tree
	c := &w.sim
	if d.result != sim.ResultForward || c.UserSpace || len(c.Generated)+len(c.Logged) > 0 || len(c.Learn) == 0 || !allReplies(c.Learn) {
		return
	}
	w.explainExpect(k, d)
	e := w.flows.Add(k, c.Mask, d.actions, c.Tags, w.kindOf(d.result))
	w.note(e)
	e.Expect(by)
}

func allReplies(ls []sim.Learn) bool {
	return !slices.ContainsFunc(ls, func(l sim.Learn) bool { return !isReply(l) })
}

// came learns from the datapath's statistics, or from a packet that was not quite as expected, that answers have come.
func (w *Worker) came(e flow.Entry) {
	if n := e.Note(); n != 0 {
		w.passed.hit(n)
	}
	some := false
	for _, t := range e.Kept() {
		if !t.Kind.IsConnection() {
			continue
		}
		if c, s, ok := w.tables.GetConnection(t); ok && s&conntrack.Replied == 0 && t.Tuple() == c.Reply {
			w.tables.ConnectionReplied(t)
			some = true
		}
	}
	if some {
		w.refresh(e)
	}
}

// answerTo is the key of answers to packets with the key k that leave this host with the actions as. Not ok: it is not known, or they
// do not leave by exactly one port.
func answerTo(k *match.Key, as action.Physical) (r match.Key, ok bool) {
	if k.Frag != match.FragNone || k.TunKey != 0 {
		return r, false
	}
	r = *k
	for i := range as {
		switch a := &as[i]; a.Op {
		case action.SetEthSrc:
			r.EthSrc = a.MAC
		case action.SetEthDst:
			r.EthDst = a.MAC
		case action.SetSrc:
			r.Src = a.Addr
		case action.SetDst:
			r.Dst = a.Addr
		case action.SetSrcPort:
			r.SrcPort = a.Value
		case action.SetDstPort:
			r.DstPort = a.Value
		case action.PushVLAN:
			r.VLAN = match.VLANPresent | a.Value
		case action.PopVLAN:
			r.VLAN = 0
		case action.SetTOS, action.DecTTL, action.CheckLen: // answers have their own
		case action.Output:
			r.InPort, ok = a.Port, i == len(as)-1
			if !ok {
				return r, false
			}
		default:
			return r, false
		}
	}
	r.EthSrc, r.EthDst, r.Src, r.Dst = r.EthDst, r.EthSrc, r.Dst, r.Src
	switch {
	case r.Proto != packet.ProtoICMP && r.Proto != packet.ProtoICMPv6:
		r.SrcPort, r.DstPort = r.DstPort, r.SrcPort
	case r.Proto == packet.ProtoICMP && r.SrcPort == uint16(packet.ICMPEchoRequest)<<8:
		r.SrcPort = uint16(packet.ICMPEchoReply) << 8
	case r.Proto == packet.ProtoICMPv6 && r.SrcPort == uint16(packet.ICMPv6EchoRequest)<<8:
		r.SrcPort = uint16(packet.ICMPv6EchoReply) << 8
	default:
		return r, false
	}
	return r, ok
}
