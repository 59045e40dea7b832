package worker

import (
	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// batch is what stage 8 does in one go for several packets: flows are installed
// first, then packets are sent, then tokens go back.
type batch struct {
	misses []ended // to be recycled after their frames were sent
	execs  []datapath.Exec
	arena  action.Physical // memory of the execs' actions
	copies int             // how many packets leave: a flood is one for each port
}

// ended is a miss that is through all stages but the last, and how many packets leave because of it.
type ended struct {
	*datapath.Miss
	copies int
}

// end adds a miss that has come to its end since so many copies were there.
func (b *batch) end(m *datapath.Miss, before int) {
	b.misses = append(b.misses, ended{m, b.copies - before})
}

// share is what a miss has of the time that the batch has taken: its flow and each of its packets count as one.
func (b *batch) share(m ended, took int64) int64 {
	return took * int64(1+m.copies) / int64(len(b.misses)+b.copies)
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
	if len(b.misses) > 0 {
		w.now = w.clock.Now()
		took, at := w.meter.spent(w.now-start, w.now), w.queue.Now()
		for _, m := range b.misses {
			w.queue.Settle(m.Miss, b.share(m, took), at) // on top of what its stages took
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
