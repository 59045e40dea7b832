package upcall

import (
	"math/bits"
	"sync/atomic"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// port is the backlog of one ingress port, oldest first, in a ring that grows to what
// its tokens allow. The counters may be read by anybody, the rest belongs to the worker.
type port struct {
	no   uint32
	ring []*datapath.Miss // length: a power of two
	head uint
	len  uint

	next    *port // in the list of active ports
	active  bool
	gone    bool
	deficit int64  // ns that the port may still use in its turn; negative: overdrawn
	left    uint64 // round in which it became idle

	queued atomic.Int64
	served atomic.Uint64
	busy   atomic.Int64
	waited atomic.Int64
	delays [DelayBuckets]atomic.Uint64

	executed, consumed atomic.Uint64
	drops              [drop.NumReasons]atomic.Uint64
	setups             [DelayBuckets]atomic.Uint64
	setup              atomic.Int64
}

func (p *port) push(m *datapath.Miss) {
	if p.len == uint(len(p.ring)) {
		ring := make([]*datapath.Miss, max(8, 2*len(p.ring)))
		for i := range p.len {
			ring[i] = p.ring[(p.head+i)&uint(len(p.ring)-1)]
		}
		p.ring, p.head = ring, 0
	}
	p.ring[(p.head+p.len)&uint(len(p.ring)-1)] = m
	p.len++
	p.queued.Add(1)
}

func (p *port) pop() *datapath.Miss {
	m := p.ring[p.head]
	p.ring[p.head] = nil
	p.head = (p.head + 1) & uint(len(p.ring)-1)
	p.len--
	p.queued.Add(-1)
	return m
}

func (p *port) charge(cost int64) {
	p.deficit -= cost
	p.busy.Add(cost)
}

func (p *port) delayed(ns int64) {
	ns = max(ns, 0)
	p.waited.Add(ns)
	p.delays[bucket(ns)].Add(1)
}

func (p *port) settled(ns int64) {
	ns = max(ns, 0)
	p.setup.Add(ns)
	p.setups[bucket(ns)].Add(1)
}

func bucket(ns int64) int { return min(bits.Len64(uint64(ns)/1000), DelayBuckets-1) }

// DelayBuckets is the number of buckets of PortStats.Delays.
const DelayBuckets = 24

// PortStats is how one port was served by one worker. Counters start at 0 with the
// port's first miss.
type PortStats struct {
	Port   uint32
	Queued int    // waiting now
	Served uint64 // handed to the worker
	Busy   int64  // ns of processing
	Waited int64  // ns from miss to service, summed over Served
	// Delays counts Served by time from miss to service: bucket 0 below 1 us, bucket i
	// below 2^i us, the last one whatever is longer.
	Delays [DelayBuckets]uint64

	// How packets ended that were served: Served = Executed + Consumed + the sum of Drops + those that wait.
	Executed, Consumed uint64
	Drops              [drop.NumReasons]uint64
	// Setups counts packets by the time from miss to the end of the batch that installed their flow and sent them, in
	// buckets as Delays; Setup is the sum, in ns.
	Setups [DelayBuckets]uint64
	Setup  int64
}

func (p *port) stats() PortStats {
	s := PortStats{Port: p.no, Queued: int(p.queued.Load()), Served: p.served.Load(), Busy: p.busy.Load(), Waited: p.waited.Load()}
	s.Executed, s.Consumed, s.Setup = p.executed.Load(), p.consumed.Load(), p.setup.Load()
	for i := range s.Delays {
		s.Delays[i], s.Setups[i] = p.delays[i].Load(), p.setups[i].Load()
	}
	for i := range s.Drops {
		s.Drops[i] = p.drops[i].Load()
	}
	return s
}
