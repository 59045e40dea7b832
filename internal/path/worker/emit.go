package worker

import (
	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// batch is what stage 8 does in one go for several packets: flows are installed
// first, then packets are sent, then tokens go back.
type batch struct {
	misses []*datapath.Miss // to be recycled after their frames were sent
	execs  []datapath.Exec
	arena  action.Physical // memory of the execs' actions
	copies int             // how many packets leave: a flood is one for each port
}

// full says that what is waiting should leave now. Most of a batch's time is sending: a few broadcasts would have others wait for as long as
// hundreds of packets take, so copies count too.
func (b *batch) full(limit int) bool {
	return len(b.misses) >= limit || len(b.execs) >= limit || b.copies >= 2*limit
}

// send appends a packet. Frame must stay until the batch is emitted, actions are copied.
func (b *batch) send(e datapath.Exec) {
	at := len(b.arena)
	b.arena = append(b.arena, e.Actions...)
	for i := range e.Actions {
		if op := e.Actions[i].Op; op == action.Output || op == action.Tunnel {
			b.copies++
		}
	}
	e.Actions = b.arena[at:len(b.arena):len(b.arena)]
	b.execs = append(b.execs, e)
}

func (b *batch) reset() {
	clear(b.execs)
	b.misses, b.execs, b.arena, b.copies = b.misses[:0], b.execs[:0], b.arena[:0], 0
}

// execute queues a packet for its actions; empty ones drop it for the reason given.
func (w *Worker) execute(m *datapath.Miss, as action.Physical, empty drop.Reason) {
	if len(as) == 0 {
		w.drop(empty)
		return
	}
	w.explainExecute(as)
	w.batch.send(datapath.Exec{Frame: m.Frame, GSO: m.GSO, InPort: m.Key.InPort, Actions: as})
}

// drop ends a packet for a reason.
func (w *Worker) drop(r drop.Reason) {
	w.counts.Dropped[r]++
	w.queue.Dropped(w.ingress, r)
	w.explainDrop(r)
}

// emit is stage 8: install, execute, give the tokens back.
func (w *Worker) emit() {
	b := &w.batch
	w.announce()
	w.sendAcks()
	start := w.clock.Now()
	if err := w.flows.Flush(); err != nil {
		w.counts.FlushErrors++
		w.failed(err)
	}
	if len(b.execs) > 0 {
		w.dp.Execute(b.execs)
		for i := range b.execs {
			w.executed(&b.execs[i])
		}
	}
	if n := len(b.misses); n > 0 {
		w.now = w.clock.Now()
		share, at := (w.now-start)/int64(n), w.queue.Now()
		for _, m := range b.misses {
			w.queue.Settle(m, share, at) // on top of what its stages took
		}
	}
	if len(w.taken) > 0 {
		w.tokens.Return(w.taken)
		w.counts.Returned += uint64(len(w.taken))
		w.taken = w.taken[:0]
		w.queue.Look()
	}
	b.reset()
	w.made.reset()
	w.peers.acks = w.peers.acks[:0]
}

func (w *Worker) executed(e *datapath.Exec) {
	if e.Err != nil {
		w.counts.Dropped[drop.ExecuteErr]++
		w.queue.Dropped(e.InPort, drop.ExecuteErr)
		w.failed(e.Err)
		return
	}
	w.counts.Executed++
	w.queue.Executed(e.InPort)
}

// consumed ends a packet that a device keeps for itself.
func (w *Worker) consumed() {
	w.counts.Consumed++
	w.queue.Consumed(w.ingress)
}

// failed keeps the last error for Err. It is out of line so that only a failure allocates.
func (w *Worker) failed(err error) { w.lastErr.Store(&err) }
