package sim

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// maxVisits bounds the devices that all branches of one packet visit together: a
// loop of bridges doubles the branches at each turn, long before MaxDevices ends one.
const maxVisits = 4096

// header is the part of the packet that devices rewrite.
type header struct {
	ethSrc, ethDst match.MAC
	written        match.Mask // of EthSrc and EthDst: no longer as received
	decs           uint8      // TTL decrements
}

// branch is one copy of the packet on its way through the devices. It is passed by
// value: a flood gives each receiver its own, so that no rewrite leaks
// from one to the next.
type branch struct {
	header
	devices  uint8       // bridges and routers traversed
	trail    int32       // the last of them: 1 + its index in scratch.trail; 0: none yet
	from, to match.MAC   // Ethernet addresses with which it reached the device at hand
	in       *view.Port  // by which it did; nil: generated there
	node     *trace.Node // where the branch's steps are added; nil: not traced
}

// output is a branch that reached an exterior port.
type output struct {
	header
	port uuid.UUID
}

// scratch is the engine's own memory.
type scratch struct {
	outs     []output
	trail    []trailStep
	origin   *view.Port           // exterior port by which the packet entered the virtual network; nil: generated
	frames   [MaxGenerated][]byte // memory of Generated
	consumed bool                 // a branch was answered by a device
	stopped  bool                 // the result is final, whatever other branches would do
	visits   int
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
		scratch:   scratch{outs: s.outs[:0], trail: s.trail[:0], frames: s.frames},
	}
}

// Simulate decides what becomes of c.Packet, which entered at a virtual port. The
// caller has Reset c and set its input.
func Simulate(c *Context, ingress uuid.UUID) {
	c.Mask |= match.InPort
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
	b := c.received()
	if p := c.port(port, &b); p != nil {
		// A port that is down still says so: the administrative state is not looked at.
		c.emit(p, b)
	}
	c.finish()
}

func (c *Context) received() branch {
	k := &c.Packet.Key
	return branch{header: header{ethSrc: k.EthSrc, ethDst: k.EthDst}, node: c.Trace}
}

// read is the key as received; fields go into the mask. The fields that header
// holds are read through it.
func (c *Context) read(fields match.Mask) *match.Key {
	c.Mask |= fields
	return &c.Packet.Key
}

// readSrc is the source MAC; one that a device wrote depends on no field.
func (c *Context) readSrc(b *branch) match.MAC {
	c.Mask |= match.EthSrc &^ b.written
	return b.ethSrc
}

func (c *Context) readDst(b *branch) match.MAC {
	c.Mask |= match.EthDst &^ b.written
	return b.ethDst
}

func (c *Context) depend(t tag.Tag) { c.Tags = append(c.Tags, t) }

// enter counts a device; false ends the simulation: the topology has a loop.
func (c *Context) enter(device uuid.UUID, b *branch) bool {
	c.depend(tag.Tag{Kind: tag.Device, ID: device})
	b.devices++
	c.scratch.trail = append(c.scratch.trail, trailStep{device, b.trail})
	b.trail = int32(len(c.scratch.trail))
	c.scratch.visits++
	if b.devices <= MaxDevices && c.scratch.visits <= maxVisits {
		return true
	}
	c.drop(b, ResultErrorDrop, drop.Loop)
	c.Generated = c.Generated[:0]
	c.stop()
	return false
}

// drop ends a branch. Of several branches the first of the gravest result counts.
func (c *Context) drop(b *branch, r Result, why drop.Reason) {
	if b.node != nil {
		b.node.Add("sim", r.String(), "%s: %s", why, why.Meaning())
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

// wait ends the simulation: it starts again when the neighbour is known.
func (c *Context) wait(n Neighbour) {
	c.Result, c.Reason, c.Wait = ResultNotYet, drop.None, n
	c.stop()
}

func (c *Context) stop() {
	c.scratch.stopped = true
	c.scratch.outs = c.scratch.outs[:0]
}

// finish merges the branches: one that forwards outweighs consumed, consumed outweighs
// dropped. What a flow would not repeat for later packets (an answer, an
// error message) keeps a forwarded packet in user space.
func (c *Context) finish() {
	s := &c.scratch
	switch {
	case s.stopped:
	case len(s.outs) > 0:
		c.Result, c.Reason = ResultForward, drop.None
		c.UserSpace = c.UserSpace || s.consumed || len(c.Generated) > 0
		c.assemble()
	case s.consumed:
		c.Result, c.Reason = ResultConsumed, drop.None
	}
}

// assemble turns outputs into actions. A rewrite is seen by all later outputs, so
// each output is preceded by what makes the header its own, which may be the
// original value again. A TTL cannot be raised: outputs go by decrements.
func (c *Context) assemble() {
	s := &c.scratch
	slices.SortStableFunc(s.outs, func(a, b output) int { return int(a.decs) - int(b.decs) })
	var now header // written and decs: what the actions have done so far
	for i := range s.outs {
		o := &s.outs[i]
		c.setMAC(action.SetEthSrc, match.EthSrc, &now, &now.ethSrc, o.ethSrc, o.written)
		c.setMAC(action.SetEthDst, match.EthDst, &now, &now.ethDst, o.ethDst, o.written)
		for ; now.decs < o.decs; now.decs++ {
			c.Actions = append(c.Actions, action.Action{Op: action.DecTTL})
		}
		c.Actions = append(c.Actions, action.Action{Op: action.Forward, VPort: o.port})
	}
}

func (c *Context) setMAC(op action.Op, f match.Mask, now *header, has *match.MAC, want match.MAC, written match.Mask) {
	if now.written&f == 0 && written&f == 0 {
		return // as received, and wanted so
	}
	if written&f == 0 {
		c.Mask |= f // the original value becomes part of the actions
	}
	if now.written&f == 0 || *has != want {
		now.written |= f
		*has = want
		c.Actions = append(c.Actions, action.Action{Op: op, MAC: want})
	}
}
