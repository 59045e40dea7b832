package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// viaduct decides packets as an agent's worker does: the model as the mirror shows it, simulation, rewriting, packets that
// devices make, and connections, all for real.
type viaduct struct {
	t        *testing.T
	net      *network
	snapshot *view.Snapshot
	names    map[uuid.UUID]string // of VMs' ports
	tables   *state.Tables        // of the packet at hand and those that follow it
	sim      sim.Context
	tree     *trace.Node

	// Of the packet at hand.
	outs   verdict
	traced string
}

func newViaduct(t *testing.T, n *network) *viaduct {
	t.Helper()
	v := &viaduct{t: t, net: n, names: make(map[uuid.UUID]string)}
	for _, x := range n.vms() {
		v.names[id(x.name)] = x.name
	}
	s := mem.New()
	var ops []store.Op
	os := objects(n)
	for _, k := range model.Kinds { // what is referred to first
		for _, o := range os {
			if o.Kind() == k {
				ops = append(ops, store.Op{Verb: store.Create, Object: o})
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := s.Txn(ctx, ops...); err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	m := mirror.New(id(host))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Run(ctx, s) // ends with ctx
	}()
	<-m.Synced()
	v.snapshot = m.Snapshot()
	cancel()
	<-done
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v.forget()
	return v
}

// forget starts anew, without connections.
func (v *viaduct) forget() { v.tables = state.New(state.DefaultConfig(), &clock.Manual{}) }

// decide follows a packet to its end.
func (v *viaduct) decide(p *pkt) (verdict, string) {
	v.outs, v.traced = nil, ""
	v.run(p.frame(), id(p.at.name), false, p.kind, 0)
	v.outs.sort()
	return slices.Clone(v.outs), v.traced
}

// run simulates one frame, and what devices make of it.
func (v *viaduct) run(frame []byte, port uuid.UUID, egress bool, kind string, depth int) {
	if depth > 4 {
		v.t.Fatalf("packets make packets: %s", v.traced)
	}
	c := &v.sim
	for range 4 { // again when a connection cannot be committed: it is known by now
		v.simulate(frame, port, egress)
		if c.Result != sim.ResultForward || v.commit() {
			break
		}
	}
	type made struct {
		port  uuid.UUID
		frame []byte
	}
	var mades []made
	for _, g := range c.Generated {
		mades = append(mades, made{g.Port, slices.Clone(g.Frame)})
	}
	switch c.Result {
	case sim.ResultForward:
		if c.Quoted.Proto != 0 {
			packet.RewriteQuoted(frame, &c.Quoted)
		}
		v.emit(frame, kind)
	case sim.ResultNotYet: // a worker asks for the neighbour
		if p := v.snapshot.Port(c.Wait.ID); p != nil {
			mades = append(mades, made{p.ID, sim.Solicit(nil, p, c.Wait.Addr)})
		}
	}
	for _, m := range mades {
		v.run(m.frame, m.port, true, "*", depth+1)
	}
}

// simulate does so until no ports for translation are waited for.
func (v *viaduct) simulate(frame []byte, port uuid.UUID, egress bool) {
	view, why := packet.Parse(frame, 1)
	if why != drop.None {
		v.t.Fatalf("%s: %x", why, frame)
	}
	c := &v.sim
	for range 8 {
		c.Reset()
		v.tree = &trace.Node{What: "packet"}
		c.Topo, c.State, c.Packet, c.Trace = v.snapshot, v.tables, view, v.tree
		if egress {
			sim.SimulateEgress(c, port)
		} else {
			sim.Simulate(c, port)
		}
		if c.Result != sim.ResultNotYet || c.Wait.Kind != tag.Ports {
			break
		}
		done := make(chan struct{})
		v.tables.LeasePorts(c.Wait.ID, c.Wait.Addr, c.Lease.Lo, c.Lease.Hi, c.Lease.Want, func(tag.Tag) { close(done) })
		<-done
	}
	var b strings.Builder
	_ = v.tree.Render(&b) // a strings.Builder does not fail
	v.traced += fmt.Sprintf("%s %s\n%s", c.Result, c.Reason, &b)
}

func (v *viaduct) commit() bool {
	for i := range v.sim.Learn {
		switch l := &v.sim.Learn[i]; l.Kind {
		case sim.LearnConnection:
			x := conntrack.Conn{Kind: l.Conn, Device: l.Device, Orig: l.Orig, Reply: l.Reply, Owner: l.Port}
			if v.tables.AddConnection(x) > conntrack.Known {
				return false
			}
		case sim.LearnReplied:
			v.tables.ConnectionReplied(tag.Of(l.Conn, l.Device, &l.Orig))
		}
	}
	return true
}

// emit rewrites the frame and notes what leaves.
func (v *viaduct) emit(frame []byte, kind string) {
	var as action.Physical
	var ports []uuid.UUID
	for _, a := range v.sim.Actions {
		if a.Op == action.Forward {
			ports = append(ports, a.VPort)
			a = action.Action{Op: action.Output, Port: uint32(len(ports) - 1)}
		}
		as = append(as, a)
	}
	r := packet.Rewriter{Emit: func(port uint32, _ *action.Action, f []byte) {
		v.outs = append(v.outs, v.describe(v.names[ports[port]], kind, f).plain())
	}}
	if err := r.Apply(slices.Clone(frame), packet.GSO{}, as); err != nil {
		v.t.Fatalf("%v: %s", err, v.traced)
	}
}

// describe reads a frame off the wire.
func (v *viaduct) describe(port, kind string, frame []byte) out {
	x, why := packet.Parse(frame, 0)
	if why != drop.None {
		v.t.Fatalf("a device made a frame that cannot be read: %s: %x", why, frame)
	}
	k := &x.Key
	o := out{port: port, kind: kind, ethSrc: k.EthSrc, ethDst: k.EthDst}
	if a, ok := x.ARP(); ok {
		o.src, o.dst, o.sha = a.SPA.Netip(), a.TPA.Netip(), a.SHA
		if kind == "*" {
			o.kind = map[uint16]string{packet.ARPRequest: "*arp request", packet.ARPReply: "*arp reply"}[a.Op]
		}
		return o
	}
	if k.EthType != packet.EthTypeIPv4 && k.EthType != packet.EthTypeIPv6 {
		return o
	}
	o.src, o.dst, o.ttl = k.Src.Netip(), k.Dst.Netip(), x.TTL
	if packet.ChecksumState(&x) != packet.ChecksumValid {
		v.t.Errorf("a frame leaves with a wrong checksum: %x", frame)
	}
	if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP {
		o.sport, o.dport = k.SrcPort, k.DstPort
	}
	if kind != "*" {
		return o
	}
	o.kind = "*error"
	if n, ok := x.ND(); ok {
		o.kind, o.dst = "*solicitation", n.Target.Netip()
		if n.Advert {
			o.kind, o.sha = "*advertisement", n.LLA
		}
		return o
	}
	if k.Proto == packet.ProtoTCP {
		o.kind = "*tcp reset"
		return o
	}
	m, _ := x.ICMP()
	o.icmp = [2]uint8{m.Type, m.Code}
	if !x.IsICMPError() {
		o.kind, o.icmp = "*echo reply", [2]uint8{}
	}
	return o
}
