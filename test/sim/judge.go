package sim

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	engine "github.com/viaduct-net/viaduct/internal/path/sim"
)

// judge follows every packet that carries a number from where it enters to where it comes out.
type judge struct {
	s       *Sim
	talks   []*talk
	packets map[uint64]*sentPacket
	counts  struct{ sent, delivered int }
}

type sentPacket struct {
	n        uint64
	from     *vm
	port     uuid.UUID
	host     *host
	revision int64 // of the network by which its host decided packets then
	doubtful bool  // or by some of it and some of another: the host may not have heard of all changes
	frame    []byte
	arrivals map[*vm]int
	by       *vm // that has got it last, as it came
	got      []byte

	to *vm    // after quiet: where it must come out; nil: nowhere
	as []byte // how it must look then, but for a translated source port that is chosen only now
}

func (j *judge) talk(n uint64) *talk { return j.talks[n>>16-1] }

// sent notes a packet that is about to enter.
func (j *judge) sent(v *vm, frame []byte, n uint64) {
	j.counts.sent++
	sent := &sentPacket{n: n, from: v, port: v.port, host: v.host, revision: v.host.revision, doubtful: v.host.client.doubt != 0, frame: frame, arrivals: map[*vm]int{}}
	j.packets[n] = sent
	if j.s.quiet {
		sent.to, sent.as = j.s.arrives(sent)
	}
}

// delivered judges a packet that has come out at a VM.
func (j *judge) delivered(v *vm, frame []byte, p *packet.View) {
	n := packetID(p)
	sent := j.packets[n]
	if sent == nil {
		j.s.fail("packets come from somebody", n, "%s gets %s, which nobody has sent", v.name, number(n))
		return
	}
	j.counts.delivered++
	sent.arrivals[v]++
	sent.by, sent.got = v, frame
	if sent.arrivals[v] > 1 {
		j.s.fail("packets come once", n, "%s gets %s for the %d. time", v.name, number(n), sent.arrivals[v])
	}
	if packet.ChecksumState(p) == packet.ChecksumWrong {
		j.s.fail("checksums are right", n, "%s gets %s with a wrong one: %s", v.name, number(n), describe(frame))
	}
	j.address(v, n, p)
	j.permitted(v, sent, frame)
}

// address is a judgement without any knowledge of the network: who asked an address gets answers from there, and from nowhere else, at
// the port from which it asked.
func (j *judge) address(v *vm, n uint64, p *packet.View) {
	t := j.talk(n)
	if p.Key.EthDst != v.mac {
		return // flooded
	}
	if !isReply(n) {
		if p.Key.Dst != v.addr {
			j.s.fail("addresses are right", n, "%s (%s) gets %s to %s", v.name, v.addr, number(n), p.Key.Dst)
		}
		return
	}
	ok := v == t.from && p.Key.Src == t.to && p.Key.Dst == v.addr
	if p.Key.Proto != packet.ProtoICMP {
		ok = ok && p.Key.SrcPort == t.dport && p.Key.DstPort == t.sport
	} else if m, _ := p.ICMP(); m.ID() != t.sport {
		ok = false
	}
	if !ok && !j.beside(t, v, n, p) {
		j.s.fail("addresses are right", n, "%v: %s gets the answer %s", t, v.name, describe(p.Frame))
	}
}

// beside reports an answer that goes past the router which has translated the question: of two VMs of one tenant, with a floating IP in
// between and nothing that translates sources (docs/nat.md), or when something else translates by then.
func (j *judge) beside(t *talk, v *vm, n uint64, p *packet.View) bool {
	for i, r := range j.s.oracle.within(j.packets[n&^1].revision, j.s.store.revision) {
		if first := j.s.oracle.within(j.packets[n&^1].revision, 0)[0]; i > 0 && r.nat != first.nat {
			return true // addresses are translated otherwise since: a floating IP has no connections
		}
	}
	from, to := j.packets[n].from.addr, v.addr
	return v == t.from && p.Key.Src == from && p.Key.Dst == to && from[12] == 10 && to[12] == 10 && from[13] == to[13] && t.to != from
}

// permitted asks whether any network that was there between the packet's start, as its host knew it then, and now lets it come out here like
// that. What a host decides that has not heard of some changes, and of later ones has, is like no network that there was.
func (j *judge) permitted(v *vm, sent *sentPacket, frame []byte) {
	if sent.doubtful {
		return
	}
	why := ""
	for _, r := range j.s.oracle.within(sent.revision, j.s.store.revision) {
		for _, first := range append([]*host{sent.host}, j.s.hosts...) {
			for _, ignorant := range []bool{false, true} {
				result, reason, out := j.s.oracle.decide(r, sent.port, sent.frame, knowledge{ignorant: ignorant, first: first})
				for _, x := range out {
					if x.port == v.port && same(x.frame, frame) {
						return
					}
				}
				if first == sent.host && !ignorant {
					why += fmt.Sprintf("; at revision %d: %s", r.at, verdict(result, reason, out))
				}
			}
		}
	}
	j.s.fail("nothing forbidden is delivered", sent.n, "%s gets %s as %s%s", v.name, number(sent.n), describe(frame), why)
}

func verdict(result engine.Result, reason drop.Reason, out []outcome) string {
	text := result.String()
	if reason != drop.None {
		text += ", " + reason.String()
	}
	for _, x := range out {
		text += fmt.Sprintf(", %s to port %s", describe(x.frame), x.port)
	}
	return text
}

// same compares what VMs can tell of two frames, but for the IP header's checksum and the time to live.
func same(a, b []byte) bool {
	p, bad := packet.Parse(a, 0)
	q, bad2 := packet.Parse(b, 0)
	if bad != drop.None || bad2 != drop.None {
		return false
	}
	return p.Key == q.Key && p.TTL == q.TTL && string(p.Payload()) == string(q.Payload())
}
