package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	engine "github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// checkNow is what holds whenever the host's goroutines are between two turns.
func (h *host) checkNow() {
	queued := h.dp.Queued()
	for i, w := range h.agent.Workers() {
		c := w.Counts()
		if got := ended(c); got != c.In {
			h.s.fail("counters add up", 0, "%s: worker %d: %d packets in, %d ended: %+v", h.name, i, c.In, got, c)
		}
		if c.Taken != c.Returned {
			h.s.fail("tokens are conserved", 0, "%s: worker %d has taken %d and returned %d", h.name, i, c.Taken, c.Returned)
		}
		queued += w.Queue().Len()
	}
	if a := h.agent.Tokens(); a.InFlight != int64(queued) || a.Surplus != 0 {
		h.s.fail("tokens are conserved", 0, "%s: %d misses are under way: %+v", h.name, queued, a)
	}
}

// checkOwners is that a port is served by the host alone that the store says has it: the one that is to have it waits until the other has
// let go. A host that was dead when its port was taken goes on with it until it hears (ADR 18).
func (h *host) checkOwners() {
	for _, v := range h.s.vms {
		b, ok := h.s.store.graph.Get(model.KindBinding, v.port).(*model.Binding)
		if _, active := h.agent.Port(v.port); !active || !ok || b.Owner() == h.id {
			continue
		}
		if at, taken := h.taken[v.port]; !taken || h.agent.Ready() && h.revision >= at {
			h.s.fail("a port has one owner", 0, "%s serves port %s, which is %s's", h.name, v.name, h.s.hostOf(b.Owner()).name)
		}
	}
}

func ended(c worker.Counts) uint64 {
	n := c.Executed + c.Consumed + uint64(c.Waiting)
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// checkQuiet is what holds when nothing has changed or failed for a while.
func (s *Sim) checkQuiet() {
	for _, h := range s.hosts {
		s.checkFlows(h)
		for i, w := range h.agent.Workers() {
			if n := w.Unacknowledged(); n != 0 {
				s.fail("hosts hear each other", 0, "%s: worker %d: %d messages are not acknowledged", h.name, i, n)
			}
		}
	}
}

// checkFlows simulates anew, on the store's network, a packet of each flow that is installed.
func (s *Sim) checkFlows(h *host) {
	topo := s.oracle.latest().as(h.id)
	if err := h.dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		k := f.Key
		k.InPort = 0
		x, ok := s.oracle.samples[sampleKey{h, k}]
		p, _ := packet.Parse(x.frame, f.Key.InPort)
		port, here := h.agent.Ports().Virtual(f.Key.InPort)
		who := "what answers"
		switch {
		case !here || ok && port != x.v.port:
			s.fail("flows are what the network says", 0, "%s has a flow of a port that is not here: %s", h.name, f.Key.Text(match.All))
			return true
		case !ok && f.Packets > 0:
			s.fail("flows are of packets", 0, "%s has a flow of which no packet was there: %s", h.name, f.Key.Text(match.All))
			return true
		case !ok: // of answers that may yet come
			if p, ok = worker.Specimen(nil, &f.Key); !ok {
				s.fail("flows are of packets", 0, "%s has a flow of no packet: %s", h.name, f.Key.Text(match.All))
				return true
			}
		default:
			who = x.v.name
		}
		c := &engine.Context{Topo: topo, State: h.agent.Tables(), Packet: p}
		engine.Simulate(c, port)
		want, why := []string{}, ""
		switch c.Result {
		case engine.ResultForward:
			as, _, reason := h.agent.Ports().Translate(nil, nil, c.Actions, topo)
			if want = []string{as.String()}; len(as) == 0 {
				why = reason.String()
			}
		case engine.ResultDrop, engine.ResultErrorDrop:
			want, why = []string{f.Actions[:0].String()}, c.Reason.String()
		}
		if !slices.Contains(want, f.Actions.String()) {
			s.fail("flows are what the network says", packetID(&p), "%s: %s %s: it does %s, and should %s %s (%s)", h.name, who, f.Key.Text(match.All), f.Actions, c.Result, strings.Join(want, ""), why)
		}
		return true
	}); err != nil {
		s.fail("datapath", 0, "%s: %v", h.name, err)
	}
}

// checkProbes is what must have become of the packets that were sent after quiet.
func (s *Sim) checkProbes(from int) {
	for _, t := range s.judge.talks[from:] {
		for _, n := range t.packets {
			s.checkProbe(t, n)
		}
		v := t.from
		if frame := packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: t.to, Dst: v.addr}, 1, 1, nil); len(t.packets) == 0 && v.reaches(t.to) && s.isTold(v, frame) {
			s.fail("nothing allowed is dropped", 0, "%v: %s is not told the MAC of its next hop", t, v.name)
		}
	}
}

func (s *Sim) checkProbe(t *talk, n uint64) {
	sent := s.judge.packets[n]
	to, frame := sent.to, sent.as
	if to == nil {
		return
	}
	if sent.arrivals[to] != 1 {
		s.fail("nothing allowed is dropped", n, "%v: %s should reach %s once as %s, and did %d times", t, number(n), to.name, describe(frame), sent.arrivals[to])
		return
	}
	if isReply(n) || to.silent {
		return
	}
	if p, _ := packet.Parse(frame, 0); !to.reaches(p.Key.Src) {
		return
	}
	if s.judge.packets[n|1] == nil && s.isTold(to, frame) {
		s.fail("nothing allowed is dropped", n, "%v: %s has got %s and cannot answer: the next hop is not known to it", t, to.name, number(n))
		return
	}
	if s.judge.packets[n|1] != nil {
		s.checkProbe(t, n|1)
	}
}

// isTold reports whether a router must tell a VM its MAC, for an answer to a frame.
func (s *Sim) isTold(v *vm, frame []byte) bool {
	p, _ := packet.Parse(frame, 0)
	if v.prefix.Contains(p.Key.Src.Netip()) {
		return false // another VM has to, which nobody knows to be there
	}
	r, _, _ := s.oracle.decide(s.oracle.latest(), v.port, packet.BuildARPRequest(nil, v.mac, v.addr, v.gateway), knowledge{})
	return r == engine.ResultConsumed
}

// arrives says at which VM a packet must come out now; nil: at none.
func (s *Sim) arrives(sent *sentPacket) (to *vm, frame []byte) {
	var asked []resolution
	_, _, out := s.oracle.decide(s.oracle.latest(), sent.port, sent.frame, knowledge{resolved: &asked})
	if slices.ContainsFunc(asked, func(x resolution) bool { return !s.oracle.resolves(x) }) {
		return nil, nil // only if it was known before
	}
	for _, x := range out {
		for _, v := range s.vms {
			p, _ := packet.Parse(x.frame, 0)
			if v.port == x.port && v.host != nil && p.Key.EthDst == v.mac {
				return v, x.frame
			}
		}
	}
	return nil, nil
}

// checkSilence is what is left when nobody has sent for long: nothing.
func (s *Sim) checkSilence() {
	for _, h := range s.hosts {
		var left []string
		add := func(what string, n int) {
			if n != 0 {
				left = append(left, fmt.Sprintf("%d %s", n, what))
			}
		}
		flows := 0
		_ = h.dp.DumpFlows(func(*datapath.FlowInfo) bool { flows++; return true })
		add("flows in the datapath", flows)
		t := h.agent.Tables().Stats()
		add("MACs", t.MACs)
		add("neighbours", t.Neighbours)
		add("neighbours of bridges", t.BridgeNeighbours)
		add("connections", t.Connections)
		for _, w := range h.agent.Workers() {
			add("flows", w.Flows().Stats().Flows)
			add("entries of flows", w.Flows().Stats().Entries)
			add("packets that wait", w.Counts().Waiting)
			add("messages under way", w.Unacknowledged())
		}
		if len(left) > 0 {
			s.fail("nothing is left after silence", 0, "%s: %s", h.name, strings.Join(left, ", "))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(s.store.shared)) {
		e := s.store.shared[path]
		if !strings.HasPrefix(path, "host/") {
			s.fail("nothing is left after silence", 0, "the store has %s of %s", path, e.holder.c.name)
		}
	}
}
