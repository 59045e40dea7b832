// Package worker is one shard of the packet's path: one goroutine that takes misses through all
// stages (packet.go is the table of contents). It owns its flow tables and its waiting packets and shares no
// lock with other workers on the packet's way.
package worker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/prep"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/path/upcall"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Tokens takes back what the datapath has taken: for each token the number of the port whose it was, 0 for the root's. htb.Policy is one.
type Tokens interface{ Return(owners []uint32) }

// Config of a worker. Zero values mean the defaults.
type Config struct {
	ID   int
	Host uuid.UUID // this host's, for what it tells others
	Hold bool      // take no packets until Listen or Serve is called: what they depend on is not known yet
	// Batch bounds how many packets leave together. It is what a victim waits for when its packet comes while a batch is
	// being made, so it is short: longer ones save system calls at the price of everybody's latency. Default 8.
	Batch int
	Idle  time.Duration // how long to wait for a miss before looking after other things; 100 ms
	// Expected bounds the flows of answers that one ingress port's connections have installed beforehand and that were not heard of yet; 1,024.
	// Those of further connections are decided when they come.
	Expected int
	// Linger is for how long a flow that has seen FIN or RST must have been idle until its connection counts as ended; 10 s.
	Linger time.Duration
	Flow   flow.Config
	Queue  upcall.Config
	Prep   prep.Config

	Replies Replies
}

// Deps are the parts of the host that a worker uses.
type Deps struct {
	Datapath datapath.Datapath
	State    *state.Tables // shared by all workers
	Tokens   Tokens
	Clock    clock.Clock
	CPU      func() clock.CPU // of the calling goroutine; nil: ports are charged for whatever time passes, by Clock
	// Changed tells every worker but by that what these tags name has changed; the tags are by's memory.
	// by is nil when no worker has caused it; it may then be called on any goroutine.
	Changed func(by *Worker, tags []tag.Tag)
	// Load has parts of the network brought here that a packet of port needs; it does not wait, and keeps nothing of what. False: it is
	// too much for the port. Nil: the worker's topology is whole.
	Load func(port uuid.UUID, what []view.Thing) bool
	// Hello is called when another host asks for what concerns it: each worker is then to TellHost. Nil: it is not told.
	Hello func(from match.Addr)
	// Owns is called when another host has taken a port while the store took this one for dead, at a revision of the store; it does not wait. Nil: it is not told.
	Owns func(port, host uuid.UUID, revision int64)
	// Fault is told of panics, once a second at most; Counts.Faults has them all. It is called on the worker's goroutine. Nil: nobody is.
	Fault func(Fault)
}

// Worker is one shard. Run's goroutine owns everything but the inbox.
type Worker struct {
	cfg     Config
	dp      datapath.Datapath
	tables  *state.Tables
	tokens  Tokens
	settler datapath.Settler // nil: misses go with the agent that has read them
	clock   clock.Clock
	tell    func(by *Worker, tags []tag.Tag)
	inbox   inbox
	intake  intake
	bell    chan struct{} // rung by Do, for a worker that takes no packets
	late    bool          // what is read may have waited since before there was this agent

	queue *upcall.Queue
	flows *flow.Table
	lot   *prep.Lot
	woken []prep.Woken // scratch

	snapshot *view.Snapshot // of the virtual network, for the packets of one turn
	ports    *xlate.Ports
	now      int64

	sim      sim.Context
	recall   *recall
	hint     sim.Hint        // of the flow that is being adopted
	actions  action.Physical // of the decision at hand
	changed  []tag.Tag       // scratch
	news     []tag.Tag       // changed, and not yet told to the other workers
	made     made
	begun    bool      // the packet at hand has begun a connection
	newConns []newConn // those that were added last
	answer   match.Key // what answers to it look like
	replies  replies
	frame    []byte // scratch for a request
	batch    batch
	meter    meter
	peers    peers
	hello    func(from match.Addr)
	owns     func(port, host uuid.UUID, revision int64)
	taken    []uint32 // whose tokens are to be given back with the batch
	busy     bool     // there are flows to be removed, or hosts to be told, now
	load     func(port uuid.UUID, what []view.Thing) bool
	loading  []latePacket

	ingress uint32 // datapath port by which the packet at hand came in; 0: a device made it

	trace  *trace.Node // of the packet at hand; nil: not traced
	traced uuid.UUID   // where it entered
	lives  []*Watcher

	onFault func(Fault)
	faults  faults

	rules   RuleLog
	passed  ruleLists
	counts  Counts
	lastErr atomic.Pointer[error]
}

// Counts tell how packets ended. Once nothing is in progress,
// In = Executed + Dropped + Consumed + Waiting, the sum running over all reasons; packets that
// devices made count as In too.
type Counts struct {
	In, Made           uint64
	Executed, Consumed uint64
	Dropped            [drop.NumReasons]uint64
	Waiting            int // parked or held back now
	Taken, Returned    uint64
	FlushErrors        uint64
	Faults             uint64 // panics that a guard has caught
}

func (c Config) withDefaults() Config {
	if c.Batch <= 0 {
		c.Batch = 8
	}
	if c.Idle <= 0 {
		c.Idle = 100 * time.Millisecond
	}
	if c.Expected <= 0 {
		c.Expected = 1024
	}
	if c.Linger <= 0 {
		c.Linger = 10 * time.Second
	}
	return c
}

// New makes a worker that has not started. Its topology is empty until SetTopology and SetPorts are called.
func New(cfg Config, d Deps) *Worker {
	cfg = cfg.withDefaults()
	w := &Worker{
		cfg: cfg, dp: d.Datapath, tables: d.State, tokens: d.Tokens, clock: d.Clock, tell: d.Changed, hello: d.Hello, owns: d.Owns, load: d.Load, onFault: d.Fault,
		lot:      prep.NewLot(cfg.Prep),
		snapshot: &view.Snapshot{},
		ports:    xlate.NewPorts(),
		replies:  newReplies(cfg.Replies),
		recall:   newRecall(),
		meter:    meter{cpu: d.CPU},
		bell:     make(chan struct{}, 1),
	}
	w.settler, _ = d.Datapath.(datapath.Settler)
	if w.intake = everybody; cfg.Hold {
		w.intake = nobody
	}
	cfg.Flow.Counted, cfg.Flow.Forgotten = w.passed.count, w.passed.drop
	cfg.Flow.Holds, cfg.Flow.Hold, cfg.Flow.Release, cfg.Flow.OnBusy = w.holds, w.holdOn, w.tables.Release, w.refresh
	cfg.Flow.Came, cfg.Flow.Ahead = w.came, w.tables.AheadRelease
	w.flows = flow.New(cfg.Flow, d.Datapath, d.Clock)
	cfg.Queue.Urgent, cfg.Queue.Ahead = urgent, w.ahead
	w.queue = upcall.New(d.Datapath, cfg.ID, cfg.Queue)
	return w
}

// Run serves packets until ctx ends or the datapath is closed. Packets that wait are then dropped, their
// tokens were already given back.
func (w *Worker) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.Turn(w.patience()); err != nil {
			if errors.Is(err, datapath.ErrClosed) {
				return nil
			}
			return err
		}
	}
	return nil
}

// Turn serves what is there, one batch at most, after waiting up to wait for the first
// packet, and then looks after everything else that is due. It does not wait when more is due than it does at once. Run
// calls it forever; tests call it by hand.
func (w *Worker) Turn(wait time.Duration) error {
	w.inbox.run()
	if w.busy || len(w.batch.execs)+len(w.batch.misses) > 0 { // by what it was told just now, too
		wait = 0
	}
	if w.intake == nobody {
		w.tidy()
		w.rest(wait)
		return nil
	}
	m, err := w.queue.Next(wait)
	w.meter.begin(w.clock.Now())
	for ; m != nil && err == nil; m, err = w.queue.Next(0) {
		w.serve(m)
		if w.batch.full(w.cfg.Batch) || w.queue.Apart() {
			break
		}
	}
	w.late = w.late && m != nil
	w.tidy()
	return err
}

// tidy ends a turn: what was decided leaves, and everything else that is due is looked after.
func (w *Worker) tidy() {
	w.emit()
	w.keepHouse()
	if len(w.batch.execs) > 0 { // what is told again must not wait for the next miss
		w.emit()
	}
	if w.settler != nil && w.queue.Len() == 0 && w.counts.Waiting == 0 {
		w.settler.Settle(w.cfg.ID)
	}
}

// serve takes a packet off the ring through the stages and measures what it costs.
func (w *Worker) serve(m *datapath.Miss) {
	start := w.clock.Now()
	w.now = start
	w.counts.In++
	w.counts.Taken++
	w.taken = append(w.taken, owner(m))
	w.ingress = m.Key.InPort
	w.beginTrace(m, "")
	kept, copies := false, w.batch.copies
	if w.late && w.queue.Now()-m.Time > int64(tooLate) {
		w.drop(drop.ParkTimeout)
	} else {
		kept = w.guarded(m)
	}
	w.endTrace()
	now := w.clock.Now()
	w.queue.Keep(m, w.meter.spent(now-start, now))
	if !kept {
		w.batch.end(m, copies)
	}
}

// owner is whose token a miss holds.
func owner(m *datapath.Miss) uint32 {
	if m.Lent {
		return 0
	}
	return m.Key.InPort
}

// tendAtMost is how many flows that have become invalid or were idle go at a turn: about as much work as a batch of packets.
const tendAtMost = 64

// keepHouse does what time or an answer makes due, a little at a turn.
func (w *Worker) keepHouse() {
	w.now = w.clock.Now()
	w.expireParked()
	w.expireLate()
	w.busy = w.flows.Tend(tendAtMost)
	w.resend()
	w.busy = w.tellOn() || w.busy
	w.judgeEarly()
	if len(w.batch.execs)+len(w.batch.misses) > 0 { // not only when a packet comes
		w.emit()
	}
}

// Reconfigure changes bounds and times of the flow table, of the packets that wait and of replies, Expected and Linger; the rest of the configuration
// stays. Flows beyond a lower bound go by Trim. Call it through Do.
func (w *Worker) Reconfigure(cfg Config) {
	w.cfg.Linger, w.cfg.Expected = cfg.withDefaults().Linger, cfg.withDefaults().Expected
	w.flows.Reconfigure(cfg.Flow)
	w.lot.Reconfigure(cfg.Prep)
	w.replies.configure(cfg.Replies)
}

// Trim removes some of the flows beyond the bound, and reports whether there are more. Call it through Do.
func (w *Worker) Trim() (more bool) { return w.flows.Trim(trimChunk) }

// trimChunk is how many flows are evicted between two batches of packets.
const trimChunk = 256

// SetTopology and SetPorts give the worker what it decides on from now on. Like everything that
// touches a worker from outside, they must be called through Do.
func (w *Worker) SetTopology(s *view.Snapshot) { w.snapshot = s }

// Topology is what it decides on now. Call it through Do, or where Turn is called.
func (w *Worker) Topology() *view.Snapshot { return w.snapshot }

// SetPorts replaces the table of local ports.
func (w *Worker) SetPorts(p *xlate.Ports) { w.ports = p }

// Invalidate removes every flow that depends on one of the tags, and wakes the packets that
// wait for it. Call it through Do, after the new state can be seen.
func (w *Worker) Invalidate(tags []tag.Tag) {
	for i := range tags {
		w.flows.Invalidate(tags[i].Hash())
	}
	w.recall.changedTags(tags)
	w.Wake(tags)
	w.wakeLate(tags)
}

// ForgetPort removes what a datapath port that is gone has left behind. Call it through Do.
func (w *Worker) ForgetPort(no uint32) {
	w.flows.InvalidatePort(no)
	at := tag.Tag{Kind: tag.DPPort, N: no}
	w.recall.changed(at.Hash())
	w.woken = w.lot.DropPort(no, w.woken[:0])
	for _, p := range w.woken {
		w.giveUp(p.Miss, drop.NotBound)
	}
	w.forgetEarly(no)
	w.queue.Forget(no)
	w.replies.forget(no)
}

// Counts returns the counters. Call it through Do.
func (w *Worker) Counts() Counts { return w.counts }

// Flows is the worker's flow table. Use it through Do only.
func (w *Worker) Flows() *flow.Table { return w.flows }

// Queue is the worker's upcall queue.
func (w *Worker) Queue() *upcall.Queue { return w.queue }

// Err is the last error that a packet or flow met in the datapath, or nil. Safe for concurrent use.
func (w *Worker) Err() error {
	if p := w.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}
