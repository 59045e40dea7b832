package htb

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
)

// Class is the kind of port a leaf belongs to. The values are those of datapath.Class.
type Class uint8

// Classes of leaves.
const (
	VM     Class = iota // a virtual machine, an uplink or another host interface
	Tunnel              // traffic between hosts
	VTEP                // traffic with the VXLAN domain of a hardware VTEP
)

// String is the class's name.
func (c Class) String() string {
	if c > VTEP {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return [...]string{"vm", "tunnel", "vtep"}[c]
}

// Config are the sizes of the buckets in tokens and the classes' shares. Sizes of 0 for
// everything but Global switch protection off: all tokens accumulate at
// the root and all ports draw from there.
type Config struct {
	Global int64 // agent.datapath.global_incoming_burst_capacity: least number of tokens in the system
	Tunnel int64 // agent.datapath.tunnel_incoming_burst_capacity: of each tunnel port's leaf
	VTEP   int64 // agent.datapath.vtep_incoming_burst_capacity: of each VTEP port's leaf
	VM     int64 // agent.datapath.vm_incoming_burst_capacity: of each VM port's leaf

	// Relative shares of processing capacity under contention; a class divides its own
	// evenly among its ports.
	TunnelShare, VTEPShare, VMShare int64
}

// DefaultConfig are the documented defaults: half for tunnel and VTEP together, half for VMs.
func DefaultConfig() Config {
	return Config{Global: 256, Tunnel: 128, VTEP: 128, VM: 32, TunnelShare: 1, VTEPShare: 1, VMShare: 2}
}

// MaxTokens bounds each size, so that sums cannot overflow and rings can be sized.
const MaxTokens = 1 << 20

// MaxShare bounds each share.
const MaxShare = 1000

// Validate says what is wrong with c: Global must be 1..MaxTokens, the other sizes
// 0..MaxTokens, shares 1..MaxShare.
func (c Config) Validate() error {
	if c.Global < 1 || c.Global > MaxTokens {
		return fmt.Errorf("htb: global capacity %d is not in 1..%d", c.Global, MaxTokens)
	}
	for class, n := range [...]int64{VM: c.VM, Tunnel: c.Tunnel, VTEP: c.VTEP} {
		if n < 0 || n > MaxTokens {
			return fmt.Errorf("htb: %s capacity %d is not in 0..%d", Class(class), n, MaxTokens)
		}
	}
	for class, n := range [...]int64{VM: c.VMShare, Tunnel: c.TunnelShare, VTEP: c.VTEPShare} {
		if n < 1 || n > MaxShare {
			return fmt.Errorf("htb: %s share %d is not in 1..%d", Class(class), n, MaxShare)
		}
	}
	return nil
}

func (c Config) size(class Class) int64 {
	switch class {
	case Tunnel:
		return c.Tunnel
	case VTEP:
		return c.VTEP
	}
	return c.VM
}

// Leaf is the bucket of one port.
type Leaf struct {
	b     *bucket // without parent after Unlink
	class Class
	no    uint32
}

// Name is the leaf's path in the tree, as root/vms/tap0.
func (l *Leaf) Name() string { return l.b.name }

// Tokens is how many tokens the leaf holds now.
func (l *Leaf) Tokens() int64 { return max(atomic.LoadInt64(l.b.cell), 0) }

// Policy owns the tree of one agent. All methods are safe for concurrent use, and with
// the datapath taking tokens. Return never blocks; the others may wait
// microseconds for one another.
type Policy struct {
	pending atomic.Int64                     // returned, but not distributed yet
	ports   atomic.Pointer[map[uint32]*Leaf] // by number; replaced, never changed

	mu     sync.Mutex // all below; taken with TryLock by Return, so hold it briefly
	cfg    Config
	root   *bucket
	infra  *bucket
	parent [3]*bucket // by Class: what the leaves of a class hang from
	leaves int64      // sum of their capacities
	total  int64      // tokens that there shall be: max(cfg.Global, leaves)
	debt   int64      // tokens in excess of total, all of them in flight

	returned uint64
	surplus  uint64
	closing  []*int64 // cells of leaves unlinked since the last distribution
}

// New makes a tree without leaves. The root's cell, nil for memory of its own, must remain readable
// as long as the Policy is used, and so must the leaves'. Tokens that an earlier Policy has
// left in it are removed. cfg must be valid.
func New(cfg Config, root *int64) *Policy {
	p := &Policy{}
	p.ports.Store(&map[uint32]*Leaf{})
	p.root = newBucket(nil, "root", 0, 1, root)
	p.infra = newBucket(p.root, "infra", 0, 1, nil)
	p.parent[Tunnel] = newBucket(p.infra, "tunnel", 0, 1, nil)
	p.parent[VTEP] = newBucket(p.infra, "vtep", 0, 1, nil)
	p.parent[VM] = newBucket(p.root, "vms", 0, 1, nil)
	for _, b := range p.parent {
		b.level = true
	}
	takeUpTo(p.root.cell, 1<<62)
	p.Reconfigure(cfg)
	return p
}

// Link adds a leaf for the port of a number, and as many tokens as it takes for all leaves to be
// full at the same time. The tokens of the port's cell are the leaf's; those that are in there
// from an earlier Policy are removed, and a Closed cell is opened. A nil cell means memory of its own.
func (p *Policy) Link(name string, class Class, no uint32, cell *int64) *Leaf {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.distribute(0) // what is left in a cell that is used again is still ours
	l := &Leaf{newBucket(p.parent[class], name, p.cfg.size(class), 1, cell), class, no}
	p.number(func(ports map[uint32]*Leaf) { ports[no] = l })
	found := open(l.b.cell)
	_, held := p.root.survey()
	found = max(min(found, p.total+p.debt-held), 0)
	p.leaves += l.b.capacity
	p.resize(found)
	return l
}

// number changes which leaf a port's number stands for. p.mu is held.
func (p *Policy) number(change func(map[uint32]*Leaf)) {
	ports := maps.Clone(*p.ports.Load())
	change(ports)
	p.ports.Store(&ports)
}

// Inherit tells of n tokens that an earlier Policy has given out: of misses that are yet to be served, and of those in cells of ports
// that have no leaf yet. They count as in flight until they are returned, or Link or Recall finds them. It is to be called before any other method.
func (p *Policy) Inherit(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n -= takeUpTo(p.root.cell, n)
	p.debt += n
}

// Recall takes the tokens out of a cell that Inherit has told of, and that gets no leaf.
func (p *Policy) Recall(cell *int64) {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	found := open(cell)
	_, held := p.root.survey()
	p.distribute(max(min(found, p.total+p.debt-held), 0))
}

// Unlink removes a leaf and the tokens that Link added for it; those that are in
// flight are swallowed when they come back. Call it before the port is deleted from the datapath.
// Unlinking again has no effect.
func (p *Policy) Unlink(l *Leaf) {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.b.parent == nil {
		return
	}
	l.b.detach()
	p.number(func(ports map[uint32]*Leaf) {
		if ports[l.no] == l {
			delete(ports, l.no)
		}
	})
	p.leaves -= l.b.capacity
	p.resize(takeUpTo(l.b.cell, 1<<62))
	// A taker that was between its decrement and adding back leaves one more token.
	p.closing = append(p.closing, l.b.cell)
}

// Reconfigure changes sizes and shares; links and tokens in flight remain. cfg must be valid.
func (p *Policy) Reconfigure(cfg Config) {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg = cfg
	p.parent[Tunnel].share = cfg.TunnelShare
	p.parent[VTEP].share = cfg.VTEPShare
	p.infra.share = cfg.TunnelShare + cfg.VTEPShare
	p.parent[VM].share = cfg.VMShare

	p.leaves = 0
	var over int64
	for class, b := range p.parent {
		for _, c := range b.children {
			c.capacity = cfg.size(Class(class))
			p.leaves += c.capacity
			n := takeUpTo(c.cell, atomic.LoadInt64(c.cell)-c.capacity)
			c.out -= n
			over += n
		}
	}
	p.resize(over)
}

// resize adapts the number of tokens to the leaves and distributes; loose are tokens
// that were taken out of cells.
func (p *Policy) resize(loose int64) {
	total := max(p.cfg.Global, p.leaves)
	if d := total - p.total; d > 0 {
		loose += d
	} else {
		p.debt -= d
	}
	p.total = total
	p.root.capacity = total
	p.distribute(loose)
}

// Return brings back the tokens of packets: for each the number of the port whose it was, 0 for the root's. It distributes them unless somebody else is
// distributing, who then takes care of these too.
//
// A port can use no more of one distribution than its leaf holds. So the shares are exact only if
// batches are not larger than twice the capacity of a lone VM's leaf (64 by default): what
// does not fit goes to the other classes.
func (p *Policy) Return(owners []uint32) {
	leaves := *p.ports.Load()
	for _, no := range owners {
		if l := leaves[no]; l != nil {
			l.b.back.Add(1)
		}
	}
	p.pending.Add(int64(len(owners)))
	p.distributePending()
}

// distributePending must follow every unlock: whoever failed to get the lock meanwhile has
// left tokens behind.
func (p *Policy) distributePending() {
	for p.pending.Load() > 0 && p.mu.TryLock() {
		p.distribute(0)
		p.mu.Unlock()
	}
}

// distribute hands out what has been returned, loose tokens, and what has accumulated at the
// root, less the debt. p.mu is held.
func (p *Policy) distribute(loose int64) {
	back := p.pending.Swap(0)
	p.returned += uint64(back)
	for _, cell := range p.closing {
		loose += takeUpTo(cell, 1<<62)
	}
	p.closing = p.closing[:0]

	_, held := p.root.survey()
	if flying := p.total + p.debt - held - loose; back > flying {
		// Nobody had taken these: minting them would break every bound.
		p.surplus += uint64(back - flying)
		back = flying
	}
	n := back + loose
	if p.debt > 0 {
		pay := min(p.debt, n)
		n -= pay
		pay += takeUpTo(p.root.cell, p.debt-pay)
		p.debt -= pay
	}
	p.root.deal(n) // the root has room for all tokens there are
}
