package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/worker"
)

// sweepChunk is how many flows a worker looks at between two batches of packets. Each is a miss of the cache or two: about as much work as a
// batch.
const sweepChunk = 64

// chunk is what one worker gets at a time. Its memory is used again once the worker is done with it, so that
// reading a full table back leaves no garbage.
type chunk struct {
	flows   []datapath.FlowInfo
	actions action.Physical
}

func (c *chunk) add(f *datapath.FlowInfo) {
	at := len(c.actions)
	c.actions = append(c.actions, f.Actions...)
	c.flows = append(c.flows, *f)
	c.flows[len(c.flows)-1].Actions = c.actions[at:len(c.actions):len(c.actions)]
}

// sweep reads the datapath's flow table and hands each flow to the worker that owns its key, in
// chunks, so that packets are served in between. It waits for the workers: one chunk at a time is under way. see must not
// keep the flows.
func sweep(ctx context.Context, dp datapath.Datapath, workers []*worker.Worker, call caller, see func(*worker.Worker, []datapath.FlowInfo)) error {
	chunks := make([]chunk, len(workers))
	hand := func(i int) error {
		w, c := workers[i], &chunks[i]
		if len(c.flows) == 0 {
			return nil
		}
		if err := call(w, ctx, func() { see(w, c.flows) }); err != nil {
			return err // the worker may still read the chunk: it is not used again
		}
		c.flows, c.actions = c.flows[:0], c.actions[:0]
		return nil
	}
	var failed error
	err := dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		i := int(f.Key.ConnectionHash()) % len(workers)
		if chunks[i].add(f); len(chunks[i].flows) == sweepChunk {
			failed = hand(i)
		}
		return failed == nil
	})
	for i := range chunks {
		if failed == nil {
			failed = hand(i)
		}
	}
	if err == nil {
		err = failed
	}
	return err
}

// audit keeps the workers' copies of the flow table and the datapath's the same, and tells them which flows are in use.
func (a *Agent) audit(ctx context.Context) {
	every := <-a.auditEvery
	t := time.NewTimer(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case every = <-a.auditEvery:
			t.Reset(every)
			continue
		case <-t.C:
		}
		start := time.Now()
		if err := a.auditOnce(ctx); err != nil && ctx.Err() == nil {
			a.logs.For(logFlows).Warn("flow table cannot be read back", slog.Any("error", err))
		}
		t.Reset(pause(every, time.Since(start)))
	}
}

// pause is how long to wait after a sweep that took so long: every, less what it took, but four times as long as it took, so that
// reading back a large table takes no more than a fifth of a processor. The use of each flow must be reported more often than
// flow.Config.Idle, which is at least twice every, be it the first of one sweep and the last of the next.
func pause(every, took time.Duration) time.Duration {
	longest := 2*every - 2*took - every/10
	return max(min(max(every-took, 4*took), longest), time.Millisecond)
}

func (a *Agent) auditOnce(ctx context.Context) error {
	return sweep(ctx, a.dp, a.workers, a.call, (*worker.Worker).Audit)
}

// How long flows that wait for a neighbour's answer, or for a part of the network, are kept while they are being adopted: about five seconds. The
// time between tries doubles: each part of the network tells of the next that a flow needs, and comes soon.
const (
	adoptFirst = 8 * time.Millisecond
	adoptRetry = 500 * time.Millisecond
	adoptTries = 15
)

// adopt takes over the flows in the datapath. They keep working meanwhile; those that cannot be decided at once because
// a neighbour has to be asked, or a part of the network to be loaded, are tried again. Foreign flows are not while they wait for a neighbour:
// the answer would come to the earlier agent. Their next packets find no flow, and wait for it.
func (a *Agent) adopt(ctx context.Context) error {
	// Connections first, of all flows: an answer belongs to one that another worker learns.
	if _, _, err := a.sweepUntil(ctx, (*worker.Worker).Relearn, a.serve); err != nil {
		return err
	}
	total, undecided, err := a.sweepUntil(ctx, (*worker.Worker).Adopt, func() {})
	if !a.foreign { // or they are the earlier agent's, and go with it
		for _, o := range undecided {
			o.w.Do(func() { o.w.Forget(o.flows) })
		}
	}
	if total > 0 {
		a.logs.For(logFlows).Info("flows adopted", "found", total)
	}
	return err
}

// serve has the workers take packets: those that have come since the earlier agent ended wait for it.
func (a *Agent) serve() {
	for _, w := range a.workers {
		w.Do(w.Serve)
	}
}

// sweepUntil hands all flows to the workers, calls once, and hands them again those that they cannot decide on, a few times.
func (a *Agent) sweepUntil(ctx context.Context, see func(*worker.Worker, []datapath.FlowInfo) []datapath.FlowInfo, once func()) (total int, undecided []owned, err error) {
	err = sweep(ctx, a.dp, a.workers, a.call, func(w *worker.Worker, fs []datapath.FlowInfo) {
		total += len(fs)
		if left := see(w, fs); len(left) > 0 {
			undecided = append(undecided, owned{w, left})
		}
	})
	once()
	wait := adoptFirst
	for try := 0; err == nil && len(undecided) > 0 && try < adoptTries; try++ {
		if err := a.sleep(ctx, wait); err != nil {
			return total, nil, err
		}
		wait = min(2*wait, adoptRetry)
		next := undecided[:0]
		for _, o := range undecided {
			if err = a.call(o.w, ctx, func() { o.flows = see(o.w, o.flows) }); err != nil {
				return total, nil, err
			}
			if len(o.flows) > 0 {
				next = append(next, o)
			}
		}
		undecided = next
	}
	return total, undecided, err
}

// owned are flows that one worker has to decide on.
type owned struct {
	w     *worker.Worker
	flows []datapath.FlowInfo
}
