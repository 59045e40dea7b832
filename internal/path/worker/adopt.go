package worker

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// Adopt takes over flows that an earlier agent has left in the datapath. Each is simulated anew, kept when
// it would be decided the same, replaced when differently, and deleted when no flow would be installed. It returns those
// that cannot be decided yet because a neighbour has to answer first: they go on working, and are to be handed in
// again, or forgotten. Call it through Do, when topology and ports are known and Relearn has been called for all flows.
func (w *Worker) Adopt(fs []datapath.FlowInfo) (undecided []datapath.FlowInfo) {
	w.now = w.clock.Now()
	for i := range fs {
		f := &fs[i]
		switch r, _ := w.guardedFlow(f, w.adopt); r {
		case sim.ResultNotYet:
			if vport, _ := w.ports.Virtual(f.Key.InPort); w.awaits(f, vport) {
				again := *f
				again.Actions = slices.Clone(f.Actions)
				undecided = append(undecided, again)
			}
		case sim.ResultConsumed:
			if !f.Foreign {
				w.flows.Forget(&f.Key)
			}
		}
	}
	return undecided
}

// awaits has what a flow waits for asked for, and reports whether it may come. A packet, a neighbour's answer, would come to the earlier agent
// as long as the flow is foreign: who asked now would not ask again when the flow's next packets wait for it.
func (w *Worker) awaits(f *datapath.FlowInfo, vport uuid.UUID) bool {
	kind := w.sim.Wait.Kind
	if f.Foreign && len(w.sim.Need) == 0 && (kind == tag.Neighbour || kind == tag.Fragment) {
		return false
	}
	w.await(w.sim.Wait, w.sim.Lease, vport)
	return true
}

// Forget deletes flows that nobody wants. Call it through Do.
func (w *Worker) Forget(fs []datapath.FlowInfo) {
	for i := range fs {
		w.flows.Forget(&fs[i].Key)
	}
}

// relearn takes from a flow what the agent that installed it had learnt: its source is behind its port.
func (w *Worker) relearn(k *match.Key) {
	vport, ok := w.ports.Virtual(k.InPort)
	if !ok {
		return
	}
	if p := w.snapshot.Port(vport); p != nil && p.Bridge != uuid.Nil && !k.EthSrc.IsMulticast() {
		w.tables.LearnMAC(p.Bridge, k.VLAN&0xfff, k.EthSrc, vport)
	}
}

// adopt says how the flow's packets are decided now: ResultConsumed stands for all ways in which none is installed.
func (w *Worker) adopt(f *datapath.FlowInfo) sim.Result {
	if _, ok := w.flows.Exact(&f.Key); ok {
		return sim.ResultForward // a packet has been faster
	}
	vport, ok := w.ports.Virtual(f.Key.InPort)
	if !ok {
		return sim.ResultConsumed
	}
	v, ok := w.specimen(&f.Key)
	if !ok {
		return sim.ResultConsumed
	}
	d := w.decide(&v, vport, packet.GSO{})
	switch {
	case d.result == sim.ResultNotYet, d.result == sim.ResultConsumed:
		return d.result
	case w.sim.UserSpace:
		return sim.ResultConsumed
	case d.result == sim.ResultForward && slices.ContainsFunc(w.sim.Learn, begins):
		return sim.ResultConsumed // it was decided otherwise: the connection that it is now part of begins with its next packet
	}
	if f.Packets > 0 {
		w.answered()
	}
	var e flow.Entry
	if f.Foreign {
		e = w.flows.Add(&f.Key, w.sim.Mask, d.actions, w.sim.Tags, w.kindOf(d.result))
	} else {
		e = w.flows.Keep(&f.Key, w.sim.Mask, d.actions, w.sim.Tags, w.kindOf(d.result), f.Actions)
	}
	w.note(e)
	if f.Packets == 0 && slices.ContainsFunc(w.sim.Learn, isReply) {
		e.Expect(f.Key.InPort) // whoever began it: these are no more than there were
	}
	return d.result
}

// isReply reports whether the packet is the first answer of a connection.
func isReply(l sim.Learn) bool { return l.Kind == sim.LearnReplied }

// begins reports whether a connection would have to be committed.
func begins(l sim.Learn) bool { return l.Kind == sim.LearnConnection }

// specimen is Specimen in memory of the worker's, valid until the next one.
func (w *Worker) specimen(k *match.Key) (v packet.View, ok bool) {
	v, ok = Specimen(w.frame[:0], k)
	w.frame = v.Frame
	return v, ok
}

// Specimen makes a packet that has the key, appended to frame, which is empty. What the key does not hold is as plain as can be. Not ok:
// of such packets the key says too little.
func Specimen(frame []byte, k *match.Key) (packet.View, bool) {
	eth := packet.Ether{Dst: k.EthDst, Src: k.EthSrc, VLAN: k.VLAN}
	ip := packet.IP{Src: k.Src, Dst: k.Dst, TOS: k.TOS}
	icmp := packet.ICMP{Type: uint8(k.SrcPort >> 8), Code: uint8(k.SrcPort), Rest: uint32(k.DstPort) << 16}
	switch {
	case k.EthType != packet.EthTypeIPv4 && k.EthType != packet.EthTypeIPv6:
		return packet.View{Frame: frame}, false // ARP depends on its contents: never a flow worth keeping
	case k.Proto == packet.ProtoUDP:
		frame = packet.BuildUDP(frame, eth, ip, k.SrcPort, k.DstPort, nil)
	case k.Proto == packet.ProtoTCP:
		frame = packet.BuildTCP(frame, eth, ip, packet.TCP{SrcPort: k.SrcPort, DstPort: k.DstPort, Flags: packet.FlagACK}, nil)
	case k.Proto == packet.ProtoICMP && k.EthType == packet.EthTypeIPv4, k.Proto == packet.ProtoICMPv6:
		frame = packet.BuildICMP(frame, eth, ip, icmp, nil)
	default:
		frame = packet.BuildIP(frame, eth, ip, k.Proto, make([]byte, packet.SCTPLen))
	}
	v, bad := packet.Parse(frame, k.InPort)
	v.Key = *k
	if k.Frag == match.FragLater {
		v.L4 = 0
	}
	return v, bad == drop.None
}

// Audit compares flows read back from the datapath with the worker's copy, mends what differs, and notes which
// are in use. Call it through Do.
func (w *Worker) Audit(fs []datapath.FlowInfo) {
	w.now = w.clock.Now()
	for i := range fs {
		f := &fs[i]
		w.flows.Audit(f)
		w.ended(f)
	}
}
