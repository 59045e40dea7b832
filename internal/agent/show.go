package agent

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/upcall"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// What the agent shows on its debug socket: Agent implements debug.Agent. Whatever belongs to a
// worker is read on the worker's goroutine.

// Ready implements debug.Agent.
func (a *Agent) Ready() error {
	if r := a.notReady.Load(); r != nil {
		return errors.New(*r)
	}
	return nil
}

// Ports implements debug.Agent.
func (a *Agent) Ports(ctx context.Context) ([]debug.Port, error) {
	queues, sizes := a.queueStats(), a.leafSizes()
	snap := a.mirror.Snapshot()
	var out []debug.Port
	for _, b := range a.bindings.State() {
		p := debug.Port{ID: b.Port.String(), Interface: b.Interface, Status: string(b.State), Reason: b.Reason}
		if b.From != uuid.Nil {
			p.Reason = "host " + a.hostName(b.From) + " is to let go of it first"
		}
		if v := snap.Port(b.Port); v != nil {
			describePort(&p, snap, v)
		}
		p.Capacity = sizes[b.Interface]
		if dp, ok := a.ports.get(b.Port); ok {
			if err := a.measure(ctx, &p, dp, queues[dp.No]); err != nil {
				return nil, err
			}
		}
		out = append(out, p)
	}
	if dp, ok := a.ports.getTunnel(); ok {
		p := debug.Port{Name: "tunnel", Interface: dp.Interface, Status: debug.StatusUp, Capacity: sizes[dp.Interface]}
		if err := a.measure(ctx, &p, dp, queues[dp.No]); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y debug.Port) int { return strings.Compare(x.Name+x.ID, y.Name+y.ID) })
	return out, nil
}

// leafSizes are the capacities of the ports' buckets, by interface.
func (a *Agent) leafSizes() map[string]int64 {
	m := make(map[string]int64)
	for _, b := range a.policy.Snapshot() {
		if b.Leaf {
			m[path.Base(b.Name)] = b.Capacity
		}
	}
	return m
}

// measure adds what the datapath and the workers have counted at a port.
func (a *Agent) measure(ctx context.Context, p *debug.Port, dp datapath.Port, q upcall.PortStats) error {
	st, err := a.dp.Stats(dp.No)
	if err != nil {
		return err
	}
	p.Number = dp.No
	p.RxPackets, p.RxBytes, p.TxPackets, p.TxBytes, p.Admitted = st.RxPackets, st.RxBytes, st.TxPackets, st.TxBytes, st.Admitted
	drops := q.Drops
	for r, n := range st.Drops {
		drops[r] += n
	}
	p.Drops = dropMap(drops[:])
	p.Credit = max(atomic.LoadInt64(dp.Credit), 0)
	p.Queued, p.Work, p.Waited, p.Setup, p.Delay = q.Queued, q.Busy, q.Waited, q.Setup, q.Waited/int64(max(q.Served, 1))
	p.Delays, p.Setups = q.Delays[:], q.Setups[:]
	p.Executed, p.Consumed = q.Executed, q.Consumed
	p.Waiting = int64(q.Served - q.Executed - q.Consumed)
	for _, n := range q.Drops {
		p.Waiting -= int64(n)
	}
	p.InFlight = max(int64(st.Admitted-a.ports.admittedBefore(dp.No)-q.Served), int64(q.Queued))
	for _, w := range a.workers {
		if err := w.Call(ctx, func() { f, e := w.Flows().PortFlows(dp.No); p.Flows, p.Entries = p.Flows+f, p.Entries+e }); err != nil {
			return err
		}
	}
	return nil
}

func describePort(p *debug.Port, snap *view.Snapshot, v *view.Port) {
	p.Name = v.Name
	if v.MAC != (match.MAC{}) {
		p.MAC = v.MAC.String()
	}
	for _, x := range v.Addrs {
		p.Addresses = append(p.Addresses, x.String())
	}
	if r := snap.Router(v.Router); r != nil {
		p.Device = "router " + r.Name
	}
	br := snap.Bridge(v.Bridge)
	if br == nil {
		return
	}
	p.Device = "bridge " + br.Name
	for _, id := range br.Ports {
		if q := snap.Port(id); q != nil && q.Peer != uuid.Nil {
			if r := snap.Port(q.Peer); r != nil && r.Router != uuid.Nil {
				p.GatewayMAC = r.MAC.String()
				return
			}
		}
	}
}

func (a *Agent) queueStats() map[uint32]upcall.PortStats {
	sum := map[uint32]upcall.PortStats{}
	for _, w := range a.workers {
		for _, s := range w.Queue().Stats() {
			t := sum[s.Port]
			t.Queued += s.Queued
			t.Busy += s.Busy
			t.Served += s.Served
			t.Waited += s.Waited
			t.Executed += s.Executed
			t.Consumed += s.Consumed
			t.Setup += s.Setup
			for i := range s.Delays {
				t.Delays[i] += s.Delays[i]
				t.Setups[i] += s.Setups[i]
			}
			for r, n := range s.Drops {
				t.Drops[r] += n
			}
			sum[s.Port] = t
		}
	}
	return sum
}

func dropMap(counts []uint64) map[string]uint64 {
	m := map[string]uint64{}
	for r, n := range counts {
		if n > 0 {
			m[drop.Reason(r).String()] = n
		}
	}
	return m
}

// Flows implements debug.Agent.
func (a *Agent) Flows(ctx context.Context, port string, limit int) (out []debug.Flow, err error) {
	var only uint32
	if port != "" {
		id, err := a.findPort(port)
		if err != nil {
			return nil, err
		}
		dp, ok := a.ports.get(id)
		if !ok {
			return nil, nil
		}
		only = dp.No
	}
	for i, w := range a.workers {
		err = w.Call(ctx, func() {
			now := a.clock.Now()
			for f := range w.Flows().Flows() {
				if limit > 0 && len(out) >= limit {
					return
				}
				if only == 0 || f.Key.InPort == only {
					out = append(out, showFlow(i, &f, now))
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func showFlow(worker int, f *flow.Flow, now int64) debug.Flow {
	return debug.Flow{
		Worker: worker, Key: f.Key.String(), Mask: f.Entry.Mask().String(), Actions: f.Entry.Actions().String(),
		Kind: f.Entry.Kind().String(), Packets: f.Packets, Bytes: f.Bytes, IdleNS: now - f.Used,
	}
}

// Stats implements debug.Agent.
func (a *Agent) Stats(ctx context.Context) (debug.Stats, error) {
	s := debug.Stats{Host: a.host.Name, Workers: len(a.workers), Dropped: map[string]uint64{}}
	s.StoreFollowed, s.Revision = a.mirror.Stats().Following, a.mirror.Snapshot().Revision
	for _, w := range a.workers {
		var c worker.Counts
		var fs flow.Stats
		if err := w.Call(ctx, func() { c, fs = w.Counts(), w.Flows().Stats() }); err != nil {
			return s, err
		}
		s.In += c.In
		s.Made += c.Made
		s.Executed += c.Executed
		s.Consumed += c.Consumed
		s.Waiting += c.Waiting
		s.Taken += c.Taken
		s.Returned += c.Returned
		s.Flows += fs.Flows
		s.Entries += fs.Entries
		s.Adopted += fs.Adopted
		for r, n := range dropMap(c.Dropped[:]) {
			s.Dropped[r] += n
		}
		if err := w.Err(); err != nil {
			s.LastError = err.Error()
		}
	}
	s.Connections = a.tables.Stats().Connections
	s.Troubles = a.troubles.texts()
	acc := a.policy.Account()
	s.Tokens, s.InFlight, s.RootCredit = acc.Total, acc.InFlight, atomic.LoadInt64(a.dp.RootCredit())
	return s, nil
}

// Watch implements debug.Agent.
func (a *Agent) Watch(ctx context.Context, port string, fn func(*trace.Node) bool) (func(), error) {
	id := uuid.Nil
	if port != "" {
		var err error
		if id, err = a.findPort(port); err != nil {
			return nil, err
		}
	}
	l := &worker.Watcher{Port: id, Seen: fn}
	for _, w := range a.workers {
		if err := w.Call(ctx, func() { w.Watch(l) }); err != nil {
			return nil, err
		}
	}
	return func() {
		for _, w := range a.workers {
			w.Do(func() { w.Unwatch(l) })
		}
	}, nil
}

// notReadyBecause keeps the reason for /readyz; "" when ready.
func (a *Agent) notReadyBecause(why string) {
	if why == "" {
		a.notReady.Store(nil)
		return
	}
	a.notReady.Store(&why)
}
