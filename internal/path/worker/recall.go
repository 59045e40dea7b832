package worker

import (
	"hash/maphash"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// A wildcard entry cannot answer for the first packet of a connection: each begins one of its own. But from one host to another they are decided
// alike, as long as their ports decide nothing but which connection it is, and which rules' ranges the destination's is in. So the decision is
// remembered, and made again for other ports, of which no connection is known, without a simulation (ADR 24).

const (
	recallSets   = 64   // a port has the places of one of them, so that who spoils the places of others is one of few
	recallPlaces = 16   // of a set
	recallTries  = 4    // how many of them are looked at: as many kinds of services between two hosts are remembered
	recallClocks = 1024 // tags whose hashes agree in ten bits are forgotten together
)

// recall is what a worker remembers of simulations whose packets have begun connections.
type recall struct {
	seed   maphash.Seed
	places [recallSets * recallPlaces]recallPlace
	turn   int // which of the tries is given up next

	// A decision holds until something that it depends on has changed. clocks say when, by the tags' hashes; now counts changes.
	clocks [recallClocks]uint64
	now    uint64
	made   uint64 // decisions without a simulation
}

// recallPlace is for the decision about keys of a hash with one of some destination ports.
type recallPlace struct {
	hash    uint64
	ports   sim.PortRange
	known   bool     // it was made twice: most floods ask but once
	decided *decided // memory, when it is not
}

// decided is a decision with what it depends on.
type decided struct {
	key     match.Key // without the ports
	vport   uuid.UUID // of ingress
	dhcp    uint16    // match.DHCPPort of the destination port
	flags   uint8     // of TCP: those that say whether a packet may begin a connection
	at      uint64    // recall.now
	depends []uint16  // clocks

	actions action.Physical
	virtual action.Virtual
	mask    match.Mask
	tags    []tag.Tag
	conns   []int // which tags name the connection
	learn   []sim.Learn
	rules   []*view.Rule
}

func newRecall() *recall { return &recall{seed: maphash.MakeSeed()} }

// withoutPorts is what decisions are remembered by.
func withoutPorts(k match.Key) match.Key {
	k.SrcPort, k.DstPort = 0, 0
	return k
}

// find finds the place for a key without ports and a destination port; nil: there is none.
func (r *recall) find(k *match.Key, port uint16) (p *recallPlace, hash uint64) {
	hash = maphash.Bytes(r.seed, k.Bytes()[:])
	for i := range uint64(recallTries) {
		if p = r.place(k.InPort, hash+i); p.hash == hash && p.ports.Has(port) {
			return p, hash
		}
	}
	return nil, hash
}

func (r *recall) place(inPort uint32, n uint64) *recallPlace {
	set := inPort * 0x9e3779b1 >> 16 % recallSets
	return &r.places[uint64(set)*recallPlaces+n%recallPlaces]
}

// changed forgets what depends on a tag of this hash.
func (r *recall) changed(hash uint64) {
	r.now++
	r.clocks[hash%recallClocks] = r.now
}

// changedTags forgets what depends on tags. Connections that come and go are asked for at each recall instead.
func (r *recall) changedTags(tags []tag.Tag) {
	for i := range tags {
		if !tags[i].Kind.IsConnection() {
			r.changed(tags[i].Hash())
		}
	}
}

func (r *recall) holds(d *decided) bool {
	for _, c := range d.depends {
		if r.clocks[c] > d.at {
			return false
		}
	}
	return true
}

// beginning is what decides whether a TCP packet may begin a connection.
const beginning = packet.FlagSYN | packet.FlagACK | packet.FlagFIN | packet.FlagRST

// recalled decides like settle's simulation, if the same was decided for other ports and still would be. The outcome is in w.sim, as
// decide leaves it.
func (w *Worker) recalled(v *packet.View, vport uuid.UUID, gso packet.GSO) (d decision, ok bool) {
	t, ok := tupleOf(&v.Key)
	if !ok || w.trace != nil { // a trace shows the simulation
		return d, false
	}
	k := withoutPorts(v.Key)
	p, _ := w.recall.find(&k, v.Key.DstPort)
	if p == nil || !p.known {
		return d, false
	}
	r := p.decided
	if r.key != k || r.vport != vport || r.dhcp != match.DHCPPort(v.Key.DstPort) || !w.recall.holds(r) ||
		v.TCPFlags()&beginning != r.flags || !within(r.actions, v, gso) {
		return d, false
	}
	for i := range r.learn {
		if _, _, _, known := w.tables.Connection(tag.Connection, r.learn[i].Device, &t); known {
			return d, false
		}
	}
	c := &w.sim
	c.Reset()
	c.Topo, c.State, c.Packet, c.GSO = w.snapshot, w.tables, *v, gso
	c.Result, c.Mask, c.Stateful = sim.ResultForward, r.mask, true
	c.Actions, c.Rules = append(c.Actions, r.virtual...), append(c.Rules, r.rules...)
	c.Tags, c.Learn = append(c.Tags, r.tags...), append(c.Learn, r.learn...)
	for _, i := range r.conns {
		c.Tags[i] = tag.Of(tag.Connection, r.tags[i].ID, &t)
		w.flows.AheadTag(c.Tags[i].Hash())
	}
	for i := range c.Learn {
		c.Learn[i].Orig, c.Learn[i].Reply = t, t.Reverse()
	}
	w.actions = append(w.actions[:0], r.actions...)
	w.recall.made++
	return decision{result: sim.ResultForward, actions: w.actions}, true
}

// remember keeps a decision that has just been made by simulation, if it may be recalled.
func (w *Worker) remember(v *packet.View, vport uuid.UUID, d *decision) {
	t, ok := tupleOf(&v.Key)
	if !ok || !w.memorable(d, &t) {
		return
	}
	c, k := &w.sim, withoutPorts(v.Key)
	ports := c.DstPorts
	if c.Loose&match.DstPort == 0 {
		ports = sim.PortRange{From: t.DstPort, To: t.DstPort}
	}
	p, hash := w.recall.find(&k, t.DstPort)
	if p == nil {
		w.recall.turn++
		p = w.recall.place(k.InPort, hash+uint64(w.recall.turn%recallTries))
		p.hash, p.ports, p.known = hash, ports, false
		return
	}
	if p.decided == nil {
		p.decided = new(decided)
	}
	p.ports, p.known = ports, true
	r := p.decided
	*r = decided{
		key: k, vport: vport, dhcp: match.DHCPPort(t.DstPort), flags: v.TCPFlags() & beginning, at: w.recall.now, mask: c.Mask,
		actions: append(r.actions[:0], d.actions...), virtual: append(r.virtual[:0], c.Actions...), tags: append(r.tags[:0], c.Tags...),
		learn: append(r.learn[:0], c.Learn...), rules: append(r.rules[:0], c.Rules...), depends: r.depends[:0], conns: r.conns[:0],
	}
	in := tag.Tag{Kind: tag.DPPort, N: k.InPort}
	r.depends = append(r.depends, uint16(in.Hash()%recallClocks))
	for i := range r.tags {
		if r.tags[i].Kind == tag.Connection {
			r.conns = append(r.conns, i)
		} else if at := uint16(r.tags[i].Hash() % recallClocks); !slices.Contains(r.depends, at) {
			r.depends = append(r.depends, at)
		}
	}
}

// memorable reports whether the decision at hand would be the same for any other source port if State knew no connection either: it forwards, has
// no other effect than to begin the connection t at all devices that have asked for it, and has read nothing more of the port.
func (w *Worker) memorable(d *decision, t *match.Tuple) bool {
	c := &w.sim
	if d.result != sim.ResultForward || c.UserSpace || c.Loose&match.SrcPort == 0 || len(c.Learn) == 0 ||
		len(c.Generated)+len(c.Logged) > 0 || c.Quoted != (match.Tuple{}) {
		return false
	}
	for i := range c.Learn {
		l := &c.Learn[i]
		if l.Kind != sim.LearnConnection || l.Conn != tag.Connection || l.Orig != *t || l.Reply != t.Reverse() || l.Was != (match.Tuple{}) {
			return false
		}
	}
	for i := range c.Tags {
		switch g := &c.Tags[i]; g.Kind {
		case tag.Connection:
			if g.Tuple() != *t || !slices.ContainsFunc(c.Learn, func(l sim.Learn) bool { return l.Device == g.ID }) {
				return false
			}
		case tag.Translation, tag.Destination, tag.Affinity:
			return false
		}
	}
	return true
}
