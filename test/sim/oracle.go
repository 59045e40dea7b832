package sim

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	engine "github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// oracle says what should become of a packet. It knows the network as the store has it, at every revision there was, built from nothing each
// time; where each VM is; and all connections that any agent has. It decides with the pure simulation, which test/interop
// compares with OVN, and then follows what that says to the bytes that come out.
type oracle struct {
	s        *Sim
	history  []*revision
	samples  map[sampleKey]sample // a packet of each key that came in at each host
	rewriter packet.Rewriter
}

// revision is the network as it was from a revision on.
type revision struct {
	at      int64
	nat     string // what translates addresses
	objects []store.Event
	view    *view.Snapshot // nil: nobody has asked yet
	ports   *xlate.Ports   // every bound port, as if it were here
	numbers map[uint32]uuid.UUID
}

type sampleKey struct {
	h   *host
	key match.Key // without its port
}

type sample struct {
	v     *vm
	frame []byte
}

// changed notes the network as it is now.
func (o *oracle) changed(at int64) {
	r := &revision{at: at}
	g := o.s.store.graph
	for _, k := range model.Kinds {
		for x := range g.All(k) { // objects of a graph never change
			r.objects = append(r.objects, store.Event{Revision: at, Object: x})
		}
	}
	for _, x := range g.List(model.KindFloatingIP) {
		f := x.(*model.FloatingIP)
		r.nat += fmt.Sprint(f.PortID, f.Address, f.FixedAddress)
	}
	for _, x := range g.List(model.KindPort) {
		if p := x.(*model.Port); p.Masquerade {
			r.nat += fmt.Sprint(p.ID)
		}
	}
	o.history = append(o.history, r)
}

// within are the revisions of the network that were there between two, both included.
func (o *oracle) within(from, to int64) []*revision {
	first := 0
	for i, r := range o.history {
		if r.at <= from {
			first = i
		}
	}
	last := first
	for last+1 < len(o.history) && o.history[last+1].at <= to {
		last++
	}
	return o.history[first : last+1]
}

func (o *oracle) latest() *revision { return o.history[len(o.history)-1] }

// stream is a store of which only the beginning of a watch is known.
type stream struct {
	store.Store
	events []store.Event
}

func (x stream) Watch(context.Context) (<-chan store.Event, error) {
	ch := make(chan store.Event, len(x.events)+1)
	for _, e := range x.events {
		ch <- e
	}
	return ch, nil
}

// as is the network as the agent of a host would have it that has just read it.
func (r *revision) as(host uuid.UUID) *view.Snapshot {
	es := slices.Clone(r.objects)
	for i := range es {
		es[i].Object = model.Clone(es[i].Object)
	}
	m := mirror.New(host)
	steps := m.Steps(stream{events: append(es, store.Event{Revision: r.at, Synced: true, Last: true})})
	for {
		if did, err := steps.Step(context.Background()); !did || err != nil {
			return m.Snapshot()
		}
	}
}

func (r *revision) build() {
	if r.view != nil {
		return
	}
	r.view, r.ports, r.numbers = r.as(uuid.Nil), xlate.NewPorts(), map[uint32]uuid.UUID{}
	no := uint32(0)
	for _, e := range r.objects {
		if b, ok := e.Object.(*model.Binding); ok {
			no++
			r.ports, r.numbers[no] = r.ports.With(b.PortID, no), b.PortID
		}
	}
}

// outcome is a frame that comes out of a port.
type outcome struct {
	port  uuid.UUID
	frame []byte
}

// decide is what becomes of a frame that comes in by a port.
func (o *oracle) decide(r *revision, port uuid.UUID, frame []byte, knows knowledge) (engine.Result, drop.Reason, []outcome) {
	r.build()
	knows.o, knows.r = o, r
	p, bad := packet.Parse(frame, 1)
	if bad != drop.None {
		return engine.ResultDrop, bad, nil
	}
	c := &engine.Context{Topo: r.view, State: &knows, Packet: p}
	engine.Simulate(c, port)
	if c.Result != engine.ResultForward {
		return c.Result, c.Reason, nil
	}
	as, _, why := r.ports.Translate(nil, nil, c.Actions, r.view)
	if why != drop.None {
		return engine.ResultDrop, why, nil
	}
	var out []outcome
	o.rewriter.Emit = func(no uint32, _ *action.Action, frame []byte) {
		out = append(out, outcome{r.numbers[no], slices.Clone(frame)})
	}
	if err := o.rewriter.Apply(slices.Clone(frame), packet.GSO{}, as); err != nil {
		return engine.ResultDrop, drop.RewriteErr, nil
	}
	return c.Result, drop.None, out
}

// knowledge is what the oracle knows beside the network; it implements engine.State.
type knowledge struct {
	o *oracle
	r *revision
	// ignorant is what is not known of VMs whose ports do not say what is behind them: frames for them are flooded, and bridges do not answer for them.
	ignorant bool
	// first is the host whose connections count before those of others: hosts may have come to different ones for the same question.
	first *host
	asked bool // FreePort was
	// resolved are VMs that a router has to ask for their MAC, unless it knows it already; nil: nobody wants to know.
	resolved *[]resolution
}

// resolution is a VM that is behind a router's port.
type resolution struct {
	port uuid.UUID
	v    *vm
}

// resolves reports whether a VM hears a router's question for its MAC, and the router the answer: filters of addresses concern ARP's, too.
func (o *oracle) resolves(x resolution) bool {
	r := o.latest()
	r.build()
	p, bad := packet.Parse(engine.Solicit(nil, r.view.Port(x.port), x.v.addr), 0)
	if bad != drop.None {
		return false
	}
	c := &engine.Context{Topo: r.view, State: &knowledge{o: o, r: r, ignorant: true}, Packet: p}
	engine.SimulateEgress(c, x.port)
	hears := c.Result == engine.ResultConsumed // the bridge knows it
	for _, a := range c.Actions {
		hears = hears || a.Op == action.Forward && a.VPort == x.v.port
	}
	answers, _, _ := o.decide(r, x.v.port, packet.BuildARPReply(nil, &p, x.v.mac), knowledge{})
	return hears && (c.Result == engine.ResultConsumed || answers == engine.ResultConsumed)
}

func (k *knowledge) MAC(bridge uuid.UUID, _ uint16, mac match.MAC) (uuid.UUID, bool) {
	if k.ignorant {
		return uuid.Nil, false
	}
	for _, v := range k.o.s.vms {
		if v.mac == mac && v.bridge == bridge {
			return v.port, true
		}
	}
	return uuid.Nil, false
}

func (k *knowledge) Neighbour(port uuid.UUID, addr match.Addr) (match.MAC, bool, bool) {
	p := k.r.view.Port(port)
	if p == nil {
		return match.MAC{}, false, false
	}
	peer := k.r.view.Port(p.Peer)
	if peer == nil {
		return match.MAC{}, false, false
	}
	for _, v := range k.o.s.vms {
		if v.addr == addr && v.bridge == peer.Bridge {
			if k.resolved != nil {
				*k.resolved = append(*k.resolved, resolution{port, v})
			}
			return v.mac, true, false
		}
	}
	if br := k.r.view.Bridge(peer.Bridge); br != nil {
		if m, ok := br.Neighbours[view.LinkAddr{Addr: addr}]; ok {
			return m, true, false
		}
		for _, up := range br.Ports { // a floating IP is answered for by its router's port
			q := k.r.view.Port(up)
			if q == nil {
				continue
			}
			if far := k.r.view.Port(q.Peer); far != nil && far.Owns(addr.Netip()) {
				return far.MAC, true, false
			}
		}
	}
	return match.MAC{}, false, true
}

func (k *knowledge) BridgeNeighbour(bridge uuid.UUID, _ uint16, addr match.Addr) (match.MAC, bool) {
	if k.ignorant || k.resolved != nil { // the router asks itself
		return match.MAC{}, false
	}
	for _, v := range k.o.s.vms {
		if v.addr == addr && v.bridge == bridge {
			return v.mac, true
		}
	}
	return match.MAC{}, false
}

func (k *knowledge) Connection(kind tag.Kind, device uuid.UUID, t *match.Tuple) (other match.Tuple, reply, replied, ok bool) {
	for i, h := range append([]*host{k.first}, k.o.s.hosts...) {
		if h == nil || i > 0 && h == k.first {
			continue
		}
		for _, x := range slices.Backward(h.tables) {
			if oth, rep, repd, has := x.Connection(kind, device, t); has {
				if !ok {
					other, reply, ok = oth, rep, true
				}
				replied = replied || repd
			}
		}
	}
	return other, reply, replied, ok
}

func (k *knowledge) FreePort(_ uuid.UUID, _ *match.Tuple, _ match.Addr, lo, _, want uint16) (uint16, bool) {
	k.asked = true
	if want != 0 {
		return want, false
	}
	return lo, false
}

// remember keeps a packet for each key, by which flows are judged later.
func (o *oracle) remember(h *host, v *vm, frame []byte) {
	p, bad := packet.Parse(frame, 0)
	if bad == drop.None {
		o.samples[sampleKey{h, p.Key}] = sample{v, slices.Clone(frame)}
	}
}

// FirstFragment finds none: nobody sends fragments here.
func (k *knowledge) FirstFragment(tag.Tag) (srcPort, dstPort uint16, tcpFlags uint8, ok bool) {
	return 0, 0, 0, false
}
