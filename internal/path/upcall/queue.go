package upcall

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Source is where admitted misses come from. A datapath.Datapath is one.
type Source interface {
	// ReadMisses fills ms with what is queued for worker, waiting up to timeout for the first
	// (0: do not wait), and returns how many were read.
	ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error)
}

// Config are the parameters of a Queue. Zero values mean the defaults.
type Config struct {
	// Quantum is the processing time that a port may use in its turn before others are
	// served. Shorter is fairer to those who wait; the price is one look at the
	// source per turn. Default 50 us.
	Quantum time.Duration
	// Batch is the most misses that are read at once. Default 64.
	Batch int
	// MaxQueued stops reading when so many misses are waiting here. Tokens bound them
	// already: this is a net below that. Default 65536.
	MaxQueued int
	// Now tells the time on the clock of Miss.Time, for the delays in PortStats; nil: they are
	// not measured.
	Now func() int64
	// Urgent misses go before all others, in their order: they must be few and cheap. Nil: none is.
	Urgent func(*datapath.Miss) bool
	// Ahead, when set, is called once for each other miss when few of its port are before it, so that what it will take can be prepared. It
	// keeps nothing of it.
	Ahead func(*datapath.Miss)
}

// Queue orders the misses of one worker. All methods belong to the worker's goroutine, but for
// Stats.
type Queue struct {
	src    Source
	worker int
	cfg    Config

	batch []*datapath.Miss // always full: memory to read into
	free  []*datapath.Miss

	mu    sync.Mutex // held by the worker to change ports, by others to read it
	ports map[uint32]*port

	urgent     []*datapath.Miss // a ring would be more than these few are worth
	onlyUrgent bool

	head, tail *port // active ports
	fresh      *port // the last of those that were let in at the front; nil: there is none
	mark       *port // the last one of this round: when its turn ends so does the round
	active     int
	size       int    // misses waiting
	look       bool   // at the source before the next miss
	round      uint64 // how often every active port has had its turn
	forgiven   uint64 // debts from before this round are void: nobody was waiting since
	last       bool   // the miss that was returned last is the last one of those let in at the front
}

// New makes a queue for what src has for worker.
func New(src Source, worker int, cfg Config) *Queue {
	if cfg.Quantum <= 0 {
		cfg.Quantum = 50 * time.Microsecond
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 64
	}
	if cfg.MaxQueued <= 0 {
		cfg.MaxQueued = 1 << 16
	}
	q := &Queue{src: src, worker: worker, cfg: cfg, ports: make(map[uint32]*port), batch: make([]*datapath.Miss, cfg.Batch), round: 1}
	for i := range q.batch {
		q.batch[i] = new(datapath.Miss)
	}
	return q
}

// Next returns the miss that is to be processed now, waiting up to timeout when there is none: nil
// and no error then. The source's error is returned once nothing is waiting. The
// miss belongs to the caller until Done or Recycle. For the order to be fair, Done or Keep
// comes before the following Next.
func (q *Queue) Next(timeout time.Duration) (*datapath.Miss, error) {
	q.last = false
	if len(q.urgent) > 0 {
		return q.popUrgent(), nil
	}
	if q.onlyUrgent {
		if err := q.refill(timeout); len(q.urgent) == 0 {
			return nil, err
		}
		return q.popUrgent(), nil
	}
	if q.size > 0 && q.head.deficit <= 0 {
		q.endTurn()
	}
	if q.look || q.size == 0 {
		q.look = false
		err := q.refill(0)
		if q.size == 0 && len(q.urgent) == 0 && err == nil {
			// Really idle. A port is not forgiven what it has overdrawn merely because the
			// others' misses came in while its own was being processed.
			q.round++
			q.forgiven = q.round
			if timeout > 0 {
				err = q.refill(timeout)
			}
		}
		if len(q.urgent) > 0 {
			return q.popUrgent(), nil // an error comes again
		}
		if q.size == 0 {
			return nil, err
		}
	}
	p := q.pick()
	fresh := q.fresh != nil
	m := p.pop()
	q.ahead(p, aheadBy-1)
	q.size--
	p.served.Add(1)
	if q.cfg.Now != nil {
		p.delayed(q.cfg.Now() - m.Time)
	}
	if p.len == 0 {
		q.retire()
	}
	q.last = fresh && q.fresh == nil
	return m, nil
}

// Apart reports that the miss which Next has returned last should not wait for those behind it: it ends the turns of ports that send little, and
// others that send much are waiting.
func (q *Queue) Apart() bool { return q.last && q.size > 0 }

// Look has Next read the source, as at the end of a turn: tokens have gone back, and a port whose turn it is may have used them. One that may
// have few packets in flight has more than those in its turn.
func (q *Queue) Look() { q.look = true }

// OnlyUrgent has Next return urgent misses alone; the others wait here until it is taken back.
func (q *Queue) OnlyUrgent(on bool) { q.onlyUrgent = on }

func (q *Queue) popUrgent() *datapath.Miss {
	m := q.urgent[0]
	n := copy(q.urgent, q.urgent[1:])
	q.urgent[n] = nil
	q.urgent = q.urgent[:n]
	p := q.known(m.Key.InPort)
	p.served.Add(1)
	if q.cfg.Now != nil {
		p.delayed(q.cfg.Now() - m.Time)
	}
	return m
}

// Done charges the port of m with cost, the nanoseconds that processing took, and takes m's
// memory back.
func (q *Queue) Done(m *datapath.Miss, cost int64) {
	q.Keep(m, cost)
	q.Recycle(m)
}

// Now is the time on the clock of Miss.Time; 0 when there is none.
func (q *Queue) Now() int64 {
	if q.cfg.Now == nil {
		return 0
	}
	return q.cfg.Now()
}

// Settle is Done for a miss whose flow and packet have left at a time of Now.
func (q *Queue) Settle(m *datapath.Miss, cost, at int64) {
	if p := q.ports[m.Key.InPort]; p != nil && at != 0 {
		p.settled(at - m.Time)
	}
	q.Done(m, cost)
}

// Executed, Consumed and Dropped count how a packet of a port of ingress ended.
func (q *Queue) Executed(no uint32) {
	if p := q.ports[no]; p != nil {
		p.executed.Add(1)
	}
}

// Consumed is for what a device kept for itself.
func (q *Queue) Consumed(no uint32) {
	if p := q.ports[no]; p != nil {
		p.consumed.Add(1)
	}
}

// Dropped is for what ended for a reason.
func (q *Queue) Dropped(no uint32, r drop.Reason) {
	if p := q.ports[no]; p != nil {
		p.drops[r].Add(1)
	}
}

// Keep charges the port of m with cost, and leaves m with the caller until Recycle.
func (q *Queue) Keep(m *datapath.Miss, cost int64) {
	if p := q.ports[m.Key.InPort]; p != nil {
		p.charge(max(cost, 0))
	}
}

// Recycle takes back the memory of a miss that was kept.
func (q *Queue) Recycle(m *datapath.Miss) { q.free = append(q.free, m) }

// Len is how many misses are waiting here, urgent ones included.
func (q *Queue) Len() int { return q.size + len(q.urgent) }

// Forget drops what is remembered of a port that has been deleted, once its last miss is
// served.
func (q *Queue) Forget(no uint32) {
	p := q.ports[no]
	if p == nil {
		return
	}
	if p.gone = true; !p.active {
		q.remove(p)
	}
}

// Stats reports every known port, ordered by number. Safe for concurrent use.
func (q *Queue) Stats() []PortStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]PortStats, 0, len(q.ports))
	for _, p := range q.ports {
		out = append(out, p.stats())
	}
	slices.SortFunc(out, func(a, b PortStats) int { return cmp.Compare(a.Port, b.Port) })
	return out
}

// refill moves all that the source has into the ports' queues, waiting for the first.
func (q *Queue) refill(timeout time.Duration) error {
	for q.size < q.cfg.MaxQueued {
		ms := q.batch[:min(len(q.batch), q.cfg.MaxQueued-q.size)]
		n, err := q.src.ReadMisses(q.worker, ms, timeout)
		for i := range n {
			if q.cfg.Urgent != nil && q.cfg.Urgent(ms[i]) {
				q.urgent = append(q.urgent, ms[i])
			} else {
				q.add(ms[i])
			}
			ms[i] = q.alloc()
		}
		if err != nil || n < len(ms) {
			return err
		}
		timeout = 0
	}
	return nil
}

func (q *Queue) alloc() *datapath.Miss {
	n := len(q.free)
	if n == 0 {
		return new(datapath.Miss)
	}
	m := q.free[n-1]
	q.free[n-1] = nil
	q.free = q.free[:n-1]
	return m
}

// known finds a port of ingress, or makes it.
func (q *Queue) known(no uint32) *port {
	p := q.ports[no]
	if p == nil {
		p = &port{no: no}
		q.mu.Lock()
		q.ports[no] = p
		q.mu.Unlock()
	}
	return p
}

func (q *Queue) add(m *datapath.Miss) {
	p := q.known(m.Key.InPort)
	p.push(m)
	q.ahead(p, p.len-1)
	q.size++
	if !p.active {
		q.activate(p)
	}
}

// aheadBy is how many misses of a port have been told to Config.Ahead: what was prepared for more would be out of the cache again.
const aheadBy = 4

// ahead tells Config.Ahead of the miss at a place in a port's queue that it has just come to, when it is not too far behind.
func (q *Queue) ahead(p *port, at uint) {
	if q.cfg.Ahead != nil && at < min(p.len, aheadBy) {
		q.cfg.Ahead(p.ring[(p.head+at)&uint(len(p.ring)-1)])
	}
}

func (q *Queue) remove(p *port) {
	q.mu.Lock()
	delete(q.ports, p.no)
	q.mu.Unlock()
}

// activate puts p into the list with a fresh quantum, less what it has overdrawn and
// not yet paid by sitting out: else sending its expensive packets one at a time
// would cost it nothing.
//
// A port that has sat out a whole round, beyond those for what it owed, or since when nobody was waiting, comes next, behind its like: who sends little does not wait for all who
// send much (RFC 8290, section 4.1, does so for flows). It can do so once a round at most, so that it takes
// no more than its turn, and everybody else has one before it does so again.
func (q *Queue) activate(p *port) {
	quantum := int64(q.cfg.Quantum)
	need := uint64(0) // rounds until it may be served
	if p.deficit >= 0 || p.left < q.forgiven {
		p.deficit = quantum
	} else {
		need = uint64(-p.deficit/quantum) + 1
		p.deficit += quantum * int64(min(max(q.round-p.left, 1), need))
	}
	p.active = true
	q.active++
	if p.left+need+1 < q.round || p.left < q.forgiven {
		q.pushNext(p)
	} else {
		q.pushBack(p)
	}
}

// pushNext lets p in at the front, behind those that were let in before. A turn that is under way goes on after theirs.
func (q *Queue) pushNext(p *port) {
	after := q.fresh
	q.fresh = p
	if after == nil {
		p.next, q.head = q.head, p
	} else {
		p.next, after.next = after.next, p
	}
	if q.tail == after {
		q.tail = p
	}
}

func (q *Queue) pushBack(p *port) {
	p.next = nil
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
}

func (q *Queue) popFront() *port {
	p := q.head
	q.head = p.next
	if q.head == nil {
		q.tail = nil
	}
	if q.fresh == p { // nobody that was let in is left
		q.fresh = nil
	}
	q.look = true
	return p
}

// turned counts rounds: p has had its turn.
func (q *Queue) turned(p *port) {
	if p == q.mark || q.mark == nil {
		q.round++
		q.mark = q.tail
	}
}

// endTurn sends the head to the back, with the quantum for its next turn.
func (q *Queue) endTurn() {
	p := q.popFront()
	p.deficit += int64(q.cfg.Quantum)
	q.pushBack(p)
	q.turned(p)
}

// retire takes the head, whose queue is empty, off the list.
func (q *Queue) retire() {
	q.active--
	p := q.popFront()
	q.turned(p)
	p.active = false
	p.left = q.round
	if p.gone {
		q.remove(p)
	}
}

// pick returns the port whose turn it is. Ports that are overdrawn by more than a quantum miss
// their turn.
func (q *Queue) pick() *port {
	for n := 0; q.head.deficit <= 0; n++ {
		if n == q.active {
			q.skipRounds()
			n = 0
		}
		q.endTurn()
	}
	return q.head
}

// skipRounds plays the rounds in which all ports would miss their turn in one go.
func (q *Queue) skipRounds() {
	best := q.head.deficit
	for p := q.head; p != nil; p = p.next {
		best = max(best, p.deficit)
	}
	rounds := max(-best, 0) / int64(q.cfg.Quantum)
	for p := q.head; p != nil; p = p.next {
		p.deficit += rounds * int64(q.cfg.Quantum)
	}
	q.round += uint64(rounds)
}
