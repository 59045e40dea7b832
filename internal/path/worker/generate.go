package worker

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// A packet that a device made may make a device generate another one (a router's ARP request is
// answered by a bridge); no further than this.
const maxDepth = 3

// made are the packets that devices generated, with the memory of their frames: it is used
// again after the batch has left.
type made struct {
	list  []madePacket
	done  int       // how many were simulated
	owner uuid.UUID // the port whose packet has caused those at hand
}

type madePacket struct {
	port  uuid.UUID
	depth int
	frame []byte
}

// add copies frame and queues it for the egress of port.
func (q *made) add(port uuid.UUID, frame []byte, depth int) {
	n := len(q.list)
	if n == cap(q.list) {
		q.list = append(q.list, madePacket{})
	}
	q.list = q.list[:n+1]
	p := &q.list[n]
	p.port, p.depth, p.frame = port, depth, append(p.frame[:0], frame...)
}

func (q *made) reset() { q.list, q.done = q.list[:0], 0 }

// generate simulates the packets that the simulation at hand has made for a datapath port's packet, and those that they make in
// turn. They start at a port's egress, cost no token and install no flow. False: it has made none.
func (w *Worker) generate(no uint32) bool {
	if len(w.sim.Generated) == 0 {
		return false
	}
	w.made.owner, _ = w.ports.Virtual(no)
	for i := range w.sim.Generated {
		if !w.replies.take(no, w.now) {
			w.dropMade(drop.ReplyOverflow)
			continue
		}
		g := &w.sim.Generated[i]
		w.made.add(g.Port, g.Frame, 0)
	}
	w.runMade()
	return true
}

// dropMade ends a packet that a device would have made: it is not one of the port's.
func (w *Worker) dropMade(why drop.Reason) {
	ingress := w.ingress
	w.ingress = 0
	w.counts.In++
	w.counts.Made++
	w.drop(why)
	w.ingress = ingress
}

func (w *Worker) collect(depth int) {
	for i := range w.sim.Generated {
		g := &w.sim.Generated[i]
		w.made.add(g.Port, g.Frame, depth)
	}
}

func (w *Worker) runMade() {
	parent, ingress := w.trace, w.ingress
	w.ingress = 0
	for ; w.made.done < len(w.made.list); w.made.done++ {
		p := w.made.list[w.made.done]
		if p.depth <= maxDepth {
			w.counts.In++
			w.counts.Made++
			w.explainMade(parent, p.port, p.frame)
			w.guardedMade(p)
		}
	}
	w.trace, w.ingress = parent, ingress
}

func (w *Worker) simulateMade(p madePacket) {
	v, bad := packet.Parse(p.frame, 0)
	if bad != drop.None {
		w.drop(drop.Internal)
		return
	}
	w.peers.fresh, w.peers.members = w.peers.fresh[:0], w.peers.members[:0]
	d := w.simulateEgress(&v, p.port)
	switch d.result {
	case sim.ResultForward:
		if why := w.connect(); why != drop.None {
			w.drop(why)
			return
		}
		w.learn()
		w.tellPeers(&v.Key, uuid.Nil, d.actions)
		w.requote(p.frame)
		w.explainExecute(d.actions)
		w.batch.send(datapath.Exec{Frame: p.frame, Actions: d.actions})
	case sim.ResultConsumed:
		w.learn()
		w.consumed()
	case sim.ResultNotYet:
		if len(w.sim.Need) > 0 && w.later(p) {
			return
		}
		// It does not wait, as nobody's share of waiting packets bounds it; but the next one is to find what this one did not.
		w.drop(drop.NoNeighbour)
		w.resolve(w.sim.Wait, w.sim.Lease, p.depth+1)
		return
	default:
		w.drop(d.reason)
	}
	w.collect(p.depth + 1)
}

// simulateEgress is stages 5 and 6 for a packet that a device made. Like decide it has no effect.
func (w *Worker) simulateEgress(v *packet.View, port uuid.UUID) decision {
	c := &w.sim
	c.Reset()
	c.Topo, c.State, c.Packet, c.Trace = w.snapshot, w.tables, *v, w.trace
	sim.SimulateEgress(c, port)
	return w.translate()
}

// await has what a packet of port waits for brought about, unless somebody already has: a neighbour is asked for its
// MAC, ports are leased, what is not known of the network is loaded. False: the port waits for as much as it may.
func (w *Worker) await(wait tag.Tag, l sim.Lease, port uuid.UUID) (ok bool) {
	w.made.owner = port
	ok = w.resolve(wait, l, 0)
	w.runMade()
	return ok
}

// resolve does so for a packet of the given depth; the request is one of the made packets.
func (w *Worker) resolve(wait tag.Tag, l sim.Lease, depth int) (ok bool) {
	if len(w.sim.Need) > 0 {
		return w.load != nil && w.load(w.made.owner, w.sim.Need)
	}
	switch wait.Kind {
	case tag.Neighbour:
		owner := w.made.owner
		if p := w.snapshot.Port(owner); p == nil || p.Bridge == uuid.Nil {
			owner = wait.ID // a router's port stands for everybody behind it: the link itself asks
		}
		send, ok := w.tables.Resolve(wait.ID, wait.Addr, owner)
		if send {
			w.solicit(wait.ID, wait.Addr, depth)
		}
		return ok
	case tag.Fragment:
		if w.tables.AwaitFragment(wait) { // it came to another worker meanwhile
			w.tell(nil, []tag.Tag{wait})
		}
	case tag.Ports:
		w.tables.LeasePorts(wait.ID, wait.Addr, l.Lo, l.Hi, l.Want, func(changed tag.Tag) {
			w.tell(nil, []tag.Tag{changed})
		})
	}
	return true
}

// Ask sends an ARP request or a neighbour solicitation for addr out of a router port. If that is not here any more the asking ends, lest an address
// counts as failed that was not asked for; packets that wait for it find out what has become of the port. Call it through Do.
func (w *Worker) Ask(port uuid.UUID, addr match.Addr) {
	if w.snapshot.Port(port) == nil {
		if t, was := w.tables.StopAsking(port, addr); was {
			w.tell(nil, []tag.Tag{t})
		}
		return
	}
	w.made.owner = port
	w.solicit(port, addr, 0)
	w.runMade()
}

func (w *Worker) solicit(port uuid.UUID, addr match.Addr, depth int) {
	p := w.snapshot.Port(port)
	if p == nil {
		return // it has gone meanwhile
	}
	w.frame = sim.Solicit(w.frame[:0], p, addr)
	if len(w.frame) == 0 {
		return // it has no address to ask from
	}
	w.made.add(port, w.frame, depth)
}

// Advertise sends the router advertisements that are due at a VM's port. Call it through Do.
func (w *Worker) Advertise(port uuid.UUID) {
	p := w.snapshot.Port(port)
	if p == nil {
		return // it has gone meanwhile
	}
	w.made.owner = port
	for _, frame := range sim.Advertise(w.snapshot, p) {
		w.made.add(port, frame, 0)
	}
	w.runMade()
}
