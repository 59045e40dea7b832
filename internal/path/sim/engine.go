package sim

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// maxVisits bounds the devices that all branches of one packet visit together: a
// loop of bridges doubles the branches at each turn, long before MaxDevices ends one.
const maxVisits = 4096

// header is the part of the packet that devices rewrite.
type header struct {
	ethSrc, ethDst   match.MAC
	src, dst         match.Addr
	srcPort, dstPort uint16     // as in match.Key: an echo's identifier is dstPort
	tos              uint8      // ToS or traffic class, ECN included
	vlan             uint16     // as in match.Key
	written          match.Mask // fields of the above that are no longer as received
	decs             uint8      // TTL decrements
}

// branch is one copy of the packet on its way through the devices. It is passed by
// value: a flood gives each receiver its own, so that no rewrite leaks
// from one to the next.
type branch struct {
	header
	devices  uint8        // bridges and routers traversed
	nat      translated   // by the device at hand
	by       [2]uuid.UUID // who has translated the source and the destination last: a device or a port
	flooded  bool         // one of several copies
	proposal int          // the last of scratch.proposals, plus 1
	trail    int32        // the last of them: 1 + its index in scratch.trail; 0: none yet
	at       header       // as it reached the device at hand: what complaints are about
	in       *view.Port   // by which it did; nil: generated there
	node     *trace.Node  // where the branch's steps are added; nil: not traced
}

// output is a branch that reached an exterior port.
type output struct {
	header
	port     uuid.UUID
	proposal int
}

// scratch is the engine's own memory.
type scratch struct {
	outs      []output
	copies    int // of outs, those of mirrors
	proposals []proposal
	ingress   uuid.UUID
	loose     match.Mask           // see Context.Loose
	asked     match.Tuple          // what State is asked about: here, so that asking does not allocate
	frames    [MaxGenerated][]byte // memory of Generated
	arrived   []byte               // memory of rewritten
	rewrites  action.Physical
	rewriter  packet.Rewriter
	choice    ruleChoice
	first     first
	consumed  bool // a branch was answered by a device
	stopped   bool // the result is final, whatever other branches would do
	visits    int
	mtu       int // the least of the routers' ports that a branch left by; 0: none has one
	trail     []trailStep
	origin    *view.Port // exterior port by which the packet entered the virtual network; nil: generated
}

// Reset clears input and outcome, and keeps memory for the next simulation.
func (c *Context) Reset() {
	s := &c.scratch
	*c = Context{
		Actions:   c.Actions[:0],
		Tags:      c.Tags[:0],
		Learn:     c.Learn[:0],
		Generated: c.Generated[:0],
		Rules:     c.Rules[:0],
		Logged:    c.Logged[:0],
		Need:      c.Need[:0],
		DstPorts:  PortRange{0, 65535},
		scratch: scratch{
			outs: s.outs[:0], proposals: s.proposals[:0], trail: s.trail[:0], frames: s.frames, arrived: s.arrived, rewrites: s.rewrites, rewriter: s.rewriter,
		},
	}
}

// Simulate decides what becomes of c.Packet, which entered at a virtual port. The
// caller has Reset c and set its input.
func Simulate(c *Context, ingress uuid.UUID) {
	c.Mask |= match.InPort
	c.scratch.ingress = ingress
	b := c.received()
	if p := c.port(ingress, &b); p != nil {
		c.scratch.origin = p
		c.ingress(p, b)
	}
	c.finish()
}

// SimulateEgress decides what becomes of c.Packet, which a device generated: it starts
// at the egress of a virtual port.
func SimulateEgress(c *Context, port uuid.UUID) {
	c.Mask |= match.InPort
	c.scratch.ingress = port
	b := c.received()
	if p := c.port(port, &b); p != nil {
		// A port that is down still says so: the administrative state is not looked at.
		c.emit(p, b)
	}
	c.finish()
}

func (c *Context) received() branch {
	k := &c.Packet.Key
	h := header{ethSrc: k.EthSrc, ethDst: k.EthDst, src: k.Src, dst: k.Dst, srcPort: k.SrcPort, dstPort: k.DstPort, tos: k.TOS, vlan: k.VLAN}
	c.follow(&h)
	return branch{header: h, node: c.Trace}
}

func (c *Context) depend(t tag.Tag) { c.Tags = append(c.Tags, t) }

// enter counts a device; false ends the simulation: the topology has a loop.
func (c *Context) enter(device uuid.UUID, b *branch) bool {
	c.depend(tag.Tag{Kind: tag.Device, ID: device})
	c.scratch.trail = append(c.scratch.trail, trailStep{device, b.trail})
	b.trail = int32(len(c.scratch.trail))
	return c.turn(b)
}

// turn counts what could be one of a loop: a device, or a rule that redirects. False ends the simulation.
func (c *Context) turn(b *branch) bool {
	b.devices++
	c.scratch.visits++
	if b.devices <= MaxDevices && c.scratch.visits <= maxVisits {
		return true
	}
	c.drop(b, ResultErrorDrop, drop.Loop)
	c.Generated, c.Learn = c.Generated[:0], c.Learn[:0] // round a loop a MAC is everywhere
	c.stop()
	return false
}

// drop ends a branch. Of several branches the first of the gravest result counts.
func (c *Context) drop(b *branch, r Result, why drop.Reason) {
	if c.scratch.stopped {
		return
	}
	if b.node != nil {
		b.node.Add("sim", r.String(), "%s: %s", why, why.Meaning())
	}
	if c.Result == ResultNotYet {
		return // whatever it would be: something is not known
	}
	if c.Reason == drop.None || r > c.Result || why == drop.Loop {
		c.Result, c.Reason = r, why
	}
}

// consume ends a branch that a device has answered.
func (c *Context) consume(b *branch, device string, name string) {
	c.scratch.consumed = true
	if b.node != nil {
		b.node.Add("sim", device+" "+name, "consume")
	}
}

// wait ends the simulation: it starts again when what t names has changed.
func (c *Context) wait(t tag.Tag) {
	if c.scratch.stopped {
		return
	}
	c.Result, c.Reason, c.Wait = ResultNotYet, drop.None, t
	c.stop()
}

func (c *Context) stop() {
	c.scratch.stopped = true
	c.scratch.outs = c.scratch.outs[:0]
}

// finish merges the branches and completes the mask.
func (c *Context) finish() {
	s := &c.scratch
	if (c.Mask|s.loose)&(match.SrcPort|match.DstPort) != 0 {
		c.Mask |= match.Frag // a flow of whole packets is not to take first fragments, which have to be seen (hasPorts)
		c.UserSpace = c.UserSpace || c.Packet.Key.Frag == match.FragFirst
	}
	c.merge()
	c.Loose = s.loose &^ c.Mask
	if c.Mask |= s.loose; c.Mask&match.DstPort != 0 {
		c.Mask &^= match.DHCP // included
	}
}

// merge makes one outcome of the branches': one that forwards outweighs consumed, consumed outweighs
// dropped. What a flow would not repeat for later packets (an answer, an
// error message) keeps a forwarded packet in user space.
func (c *Context) merge() {
	s := &c.scratch
	switch {
	case s.stopped:
	case len(s.outs) > 0:
		if s.copies == len(s.outs) && c.Result == ResultErrorDrop {
			c.UserSpace = true // a flow of copies would outlive the short time for which the drop holds
		}
		c.Result, c.Reason = ResultForward, drop.None
		c.UserSpace = c.UserSpace || s.consumed || len(c.Generated) > 0
		for i := range s.outs {
			c.agree(s.outs[i].proposal)
		}
		c.assemble()
	case s.consumed:
		c.Result, c.Reason = ResultConsumed, drop.None
	}
}
