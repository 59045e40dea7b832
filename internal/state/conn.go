package state

import (
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/nat"
)

// Connection finds the connection of a device that has t as one of its directions: tracked (kind
// tag.Connection), its source translated (tag.Translation) or its destination (tag.Destination). other is the opposite direction: translated packets become
// the reverse of it. reply: t is how answers come; replied: one has been seen.
func (t *Tables) Connection(k tag.Kind, device uuid.UUID, tu *match.Tuple) (other match.Tuple, reply, replied, ok bool) {
	f, ok := t.conns.Lookup(k, device, tu)
	return f.Other, f.Reply, f.Replied, ok
}

// AheadConnection has what a look for tracked connections with t as one of their directions will read brought into the cache.
func (t *Tables) AheadConnection(tu *match.Tuple) { t.conns.Ahead(tag.Connection, tu) }

// AheadRelease has what Release will change brought into the cache.
func (t *Tables) AheadRelease(tg *tag.Tag, handle uint64) {
	if tg.Kind.IsConnection() || tg.Kind == tag.Affinity {
		t.conns.AheadOf(handle)
	}
}

// maxTries bounds how many ports FreePort looks at.
const maxTries = 2 * nat.BlockSize

// FreePort proposes a port of addr, from lo to hi, to which the source of tu can be translated so that
// no other connection of the device looks the same to its destination: want, if that is possible. The same question has
// the same answer until a connection or a lease comes or goes. port is 0 when there is none: then another
// block may be leased (LeasePorts), unless exhausted.
func (t *Tables) FreePort(device uuid.UUID, tu *match.Tuple, addr match.Addr, lo, hi, want uint16) (port uint16, exhausted bool) {
	bs, exhausted := t.nat.Blocks(nat.Pool{Device: device, Addr: addr})
	n := len(bs) * nat.BlockSize
	if n == 0 {
		return 0, exhausted
	}
	free := func(p uint16) bool {
		reply := match.Tuple{Src: tu.Dst, Dst: addr, SrcPort: tu.DstPort, DstPort: p, Proto: tu.Proto}
		if p < lo || p > hi {
			return false
		}
		_, taken := t.conns.Lookup(tag.Translation, device, &reply)
		return !taken
	}
	if want != 0 {
		for i := range bs {
			if bs[i].First == want&^(nat.BlockSize-1) && free(want) {
				return want, false
			}
		}
	}
	// The newest block from some port on, then the others: those are full for destinations that many talk to.
	start := int(tupleHash(tu) % uint32(n))
	for i := range min(n, maxTries) {
		at := (start + i) % nat.BlockSize
		if i >= nat.BlockSize {
			at = nat.BlockSize + (start+i)%(n-nat.BlockSize)
		}
		if p := bs[at/nat.BlockSize].First + uint16(at%nat.BlockSize); free(p) {
			return p, false
		}
	}
	return 0, exhausted
}

// tupleHash spreads connections over ports. It is the same for every host and run.
func tupleHash(t *match.Tuple) uint32 {
	h := uint64(t.SrcPort)<<32 | uint64(t.DstPort)<<8 | uint64(t.Proto)
	for _, a := range [...]*match.Addr{&t.Src, &t.Dst} {
		h = (h ^ binary.BigEndian.Uint64(a[8:]) ^ binary.BigEndian.Uint64(a[:8])) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return uint32(h >> 16)
}

// LeasePorts has one more block of ports leased; got is called when there is an answer, also before it returns:
// then the flows of the tag are out of date, and packets that wait for it can go on.
func (t *Tables) LeasePorts(device uuid.UUID, addr match.Addr, lo, hi, want uint16, got func(changed tag.Tag)) {
	p := nat.Pool{Device: device, Addr: addr}
	t.nat.Lease(p, lo, hi, want, t.clock.Now(), func() { got(p.Tag()) })
}

// ResumePorts has the block leased again that a connection of an earlier agent translates to. got is as with LeasePorts, when it is.
func (t *Tables) ResumePorts(c *conntrack.Conn, got func(changed tag.Tag)) {
	p := nat.Pool{Device: c.Device, Addr: c.Reply.Dst}
	t.nat.Resume(p, c.Reply.DstPort, t.clock.Now(), func() { got(p.Tag()) })
}

// PortsFreed says that no host has a block of ports any more, which begins with first. got is as with LeasePorts, if it is leased now because connections
// that are known here have its ports.
func (t *Tables) PortsFreed(p nat.Pool, first uint16, got func(changed tag.Tag)) {
	t.nat.Freed(p, first, t.clock.Now(), func() { got(p.Tag()) })
}

// AddConnection commits a connection that a simulation has proposed. When it was added the flows of both its
// directions' tags are out of date.
func (t *Tables) AddConnection(c conntrack.Conn) conntrack.Verdict {
	now := t.clock.Now()
	v := t.conns.Add(c, now)
	if v == conntrack.Added && c.Kind == tag.Translation {
		t.nat.Use(nat.Pool{Device: c.Device, Addr: c.Reply.Dst}, c.Reply.DstPort, now)
	}
	return v
}

// AddBoth does so with a tracked connection that is not translated as two devices know it, for less than one by one (conntrack.Table.AddBoth).
func (t *Tables) AddBoth(a, b *conntrack.Conn) (ha, hb uint64, v conntrack.Verdict) {
	return t.conns.AddBoth(a, b, t.clock.Now())
}

// HoldConnection is Hold by the handle that AddBoth has returned.
func (t *Tables) HoldConnection(handle uint64) (ok bool) { return t.conns.RefAt(handle) }

func (t *Tables) freePorts(c conntrack.Conn) {
	if c.Kind == tag.Translation {
		t.nat.Free(nat.Pool{Device: c.Device, Addr: c.Reply.Dst}, c.Reply.DstPort, t.clock.Now())
	}
}

// EndConnection removes a connection that another one takes the place of: the one with a direction that the tag names, and was
// as its other direction. It appends what changed to tags.
func (t *Tables) EndConnection(tg tag.Tag, was match.Tuple, tags []tag.Tag) []tag.Tag {
	return t.conns.End(&tg, &was, tags)
}

// HasConnection reports whether there is a connection with the direction that the tag names.
func (t *Tables) HasConnection(tg tag.Tag) bool { return t.conns.Has(&tg) }

// ConnectionReplied notes that an answer was seen of the connection that the tag names.
func (t *Tables) ConnectionReplied(tg tag.Tag) { t.conns.Replied(&tg) }

// TCPEnded notes that a flow that depends on the connections among tags has seen a FIN, or an RST, and is idle since.
// It returns what changed.
func (t *Tables) TCPEnded(tags []tag.Tag, rst bool) (changed []tag.Tag) {
	for i := range tags {
		if tags[i].Kind.IsConnection() {
			changed = t.conns.Ended(&tags[i], rst, changed)
		}
	}
	return changed
}

// GetConnection returns the connection that has a direction as the tag names it, and what has been seen of it.
func (t *Tables) GetConnection(tg tag.Tag) (c conntrack.Conn, s conntrack.State, ok bool) {
	return t.conns.Get(&tg)
}

// Supersede removes what is in the way of a connection that takes its place: whatever has one of its directions. It appends what changed.
func (t *Tables) Supersede(c *conntrack.Conn, changed []tag.Tag) []tag.Tag {
	for _, tg := range [...]tag.Tag{tag.Of(c.Kind, c.Device, &c.Orig), tag.Of(c.Kind, c.Device, &c.Reply)} {
		have, _, ok := t.conns.Get(&tg)
		if !ok || have.Orig == c.Orig && have.Reply == c.Reply {
			continue
		}
		orig := tag.Of(have.Kind, have.Device, &have.Orig)
		changed = t.conns.End(&orig, &have.Reply, changed)
	}
	return changed
}

// Connections calls fn for each connection. Those that come or go meanwhile may be missed.
func (t *Tables) Connections(fn func(*conntrack.Conn, conntrack.State)) {
	t.conns.Each(func(c *conntrack.Conn, s conntrack.State, _ bool) { fn(c, s) })
}

// MergeConnection takes over a connection that another host has, with what that has seen of it. It appends what changed.
func (t *Tables) MergeConnection(c conntrack.Conn, s conntrack.State, changed []tag.Tag) ([]tag.Tag, conntrack.Verdict) {
	orig := tag.Of(c.Kind, c.Device, &c.Orig)
	v := conntrack.Known
	if s&(conntrack.FinOrig|conntrack.FinReply|conntrack.Reset) == 0 { // of one that ends, nothing need begin
		if v = t.AddConnection(c); v == conntrack.Added {
			changed = append(changed, orig, tag.Of(c.Kind, c.Device, &c.Reply))
		}
	}
	if v == conntrack.Added || v == conntrack.Known {
		changed = t.conns.Merge(&orig, s, t.clock.Now(), changed)
	}
	return changed, v
}

// UntoldConnections calls fn for each connection that flows do not tell an agent of that finds them: those that have none, and tracked ones
// whose first packet went to the higher port, or to an equal one, which flows alone let appear to go the other way (sim.Hint).
func (t *Tables) UntoldConnections(fn func(*conntrack.Conn, conntrack.State)) {
	t.conns.Each(func(c *conntrack.Conn, s conntrack.State, held bool) {
		if !held || c.Kind == tag.Connection && c.Orig.SrcPort <= c.Orig.DstPort && c.Orig.Proto != 1 && c.Orig.Proto != 58 {
			fn(c, s)
		}
	})
}
