package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/arp"
	"github.com/viaduct-net/viaduct/internal/topo/binding"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// StepConfig is what an agent that goes step by step is made of.
type StepConfig struct {
	Host     *model.Host // as it is stored
	Settings *conf.Settings
	Datapath datapath.Datapath // with one interface named TunnelDevice
	Store    store.Store
	Bundles  store.Bundles // channels of its feeds must hold what has been delivered: nothing waits
	Shared   store.Shared
	RunDir   string
	Log      *logs.Logs
	Clock    clock.Clock
	Rand     func(n int) int                    // in [0, n)
	Jitter   func(k arp.Key, now int64) float64 // in [0, 1), and the same for the same

	TunnelDevice string

	Kept *disk.Snapshot       // by an earlier agent; nil: nothing
	Keep func(*disk.Snapshot) // called with what the next agent is to begin with; nil: nothing is kept
}

// Steps is an agent without goroutines and timers of its own: whoever holds it decides when it does something, and on what clock
// (test/sim). What it does then is what Run does: these are the same functions. It has no sockets, makes no health checks and follows
// no configuration. Not safe for concurrent use.
type Steps struct {
	a      *Agent
	clock  clock.Clock
	mirror *mirror.PartSteps
	live   *live.Steps

	learntSession, blocksSession store.Session
	learnt, blocks               <-chan store.SharedEvent
	hearing                      *hearing
	blocksSynced                 bool

	jobs  []*job
	start func() (time.Duration, bool) // what is left to inherit: it says how long it sleeps
	stop  func()
	wake  int64 // when start goes on
	fail  error // of start
	ready bool
}

// job is something that is done at intervals, or, after an error, later.
type job struct {
	every, retry time.Duration
	next         int64
	do           func(context.Context) error
}

// retryStore is how long Run's loops wait after the store has failed them.
const retryStore = time.Second

// NewSteps makes an agent that has done nothing yet.
func NewSteps(cfg StepConfig) *Steps {
	x := &Steps{clock: cfg.Clock}
	a := &Agent{
		events: newEvents(), logs: cfg.Log, log: cfg.Log.For(""), clock: cfg.Clock, host: cfg.Host, dp: cfg.Datapath,
		cfg:          Config{Store: cfg.Store, Bundles: cfg.Bundles, Shared: cfg.Shared, RunDir: cfg.RunDir, TunnelDevice: cfg.TunnelDevice, Log: cfg.Log},
		boot:         conf.Resolved{Settings: cfg.Settings},
		hostsChanged: make(chan struct{}, 1), reports: make(chan string, 1), auditEvery: make(chan time.Duration, 1),
		served: make(chan struct{}),
		call:   x.call, makeTunnel: func(*Tunnel) error { return nil },
		jitter: cfg.Jitter,
	}
	x.a = a
	a.troubles = newTroubles(a.log, a.events)
	a.notReadyBecause("the topology has not been read yet")
	if a.kept = cfg.Kept; a.kept != nil {
		_, err := cfg.Store.Get(context.Background(), model.KindHost, cfg.Host.ID)
		a.unconfirmed = err != nil
	}
	_ = a.dp.DumpFlows(func(*datapath.FlowInfo) bool { a.heir = true; return false })
	a.build()
	a.blocks.rand = cfg.Rand
	a.mirror.Reach = 0
	x.mirror = a.mirror.PartSteps(cfg.Bundles)
	x.live = live.NewSteps(cfg.Shared, cfg.Host.ID, live.Kept(a.keptDead()...), a.mirror.SetHosts)
	x.jobs = []*job{
		{every: time.Second, do: func(context.Context) error { x.age(); return nil }},
		{every: time.Second, retry: retryStore, do: x.live.Announce},
		{every: shareEvery, retry: retryStore, do: x.tellLearnt},
		{every: 10 * time.Second, do: x.mirror.Tend},
		{every: keepEvery, do: func(context.Context) error { return a.writeConnections() }},
		{every: keptEvery, do: func(context.Context) error { return x.keep(cfg.Keep) }},
		{every: cfg.Settings.Topology.CompareInterval, do: x.mirror.Compare},
		{every: cfg.Settings.FlowAudit, do: func(ctx context.Context) error {
			if !x.ready {
				return nil
			}
			return a.auditOnce(ctx)
		}},
	}
	now := cfg.Clock.Now()
	for _, j := range x.jobs[4:] {
		j.next = now + int64(j.every)
	}
	x.jobs = append(x.jobs,
		&job{retry: retryStore, do: drain(func(ctx context.Context) (bool, error) { return x.mirror.Step(ctx) })},
		&job{retry: retryStore, do: drain(func(ctx context.Context) (bool, error) {
			return x.live.Watch(ctx, time.Duration(x.clock.Now()))
		})},
		&job{retry: retryStore, do: drain(x.hearLearnt)},
		&job{retry: retryStore, do: drain(x.serveBlocks)},
		&job{do: func(ctx context.Context) error {
			if !x.ready {
				return nil
			}
			return a.moves.step(ctx)
		}},
	)
	next, stop := iter.Pull(func(yield func(time.Duration) bool) {
		a.sleep = func(_ context.Context, d time.Duration) error {
			if !yield(d) {
				return context.Canceled
			}
			return nil
		}
		x.fail = a.inherit(context.Background())
	})
	x.start, x.stop = next, stop
	return x
}

// drain does all that is to be done.
func drain(step func(context.Context) (bool, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			if did, err := step(ctx); !did {
				return err
			}
		}
	}
}

// Step does all that is to be done now, but for the workers' packets. It returns the first error since the last call that the
// agent would have logged, for a story.
func (x *Steps) Step(ctx context.Context) (err error) {
	now := x.clock.Now()
	for _, j := range x.jobs {
		if j.next > now {
			continue
		}
		j.next = now + int64(j.every)
		if e := j.do(ctx); e != nil {
			j.next = now + int64(max(j.every, j.retry))
			err = errors.Join(err, e)
		}
	}
	select {
	case <-x.a.hostsChanged:
		x.a.tunnelOnce()
	default:
	}
	return errors.Join(err, x.inherit(now))
}

// inherit is what takeOver does.
func (x *Steps) inherit(now int64) error {
	if x.ready || now < x.wake || !closed(x.a.mirror.Synced()) || !closed(x.a.bindings.Listed()) {
		return nil
	}
	d, more := x.start()
	if more {
		x.wake = now + int64(d)
		return nil
	}
	x.ready = true
	x.a.notReadyBecause("")
	return x.fail
}

// keep is what topologyKeeper does.
func (x *Steps) keep(to func(*disk.Snapshot)) error {
	if to == nil || !closed(x.a.mirror.Synced()) {
		return nil
	}
	s, err := x.a.keep(x.mirror.Keep(), nil)
	if err == nil {
		to(s)
	}
	return err
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// age is one turn of tick, in an order that does not depend on how tables are hashed.
func (x *Steps) age() {
	ask, expired := x.a.tables.Tick()
	slices.SortFunc(expired, compareTags)
	slices.SortFunc(ask, func(a, b arp.Key) int {
		return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), bytes.Compare(a.Addr[:], b.Addr[:]))
	})
	x.a.aged(ask, expired)
}

func compareTags(a, b tag.Tag) int {
	if c := bytes.Compare(a.ID[:], b.ID[:]); c != 0 {
		return c
	}
	return bytes.Compare(fmt.Append(nil, a), fmt.Append(nil, b))
}

func (x *Steps) tellLearnt(ctx context.Context) (err error) {
	s := x.a.share
	if x.learntSession == nil {
		x.learntSession, err = s.store.Join(ctx, live.TTL)
		return err
	}
	if closed(x.learntSession.Done()) {
		err = errors.New("the session with the store has ended")
	} else {
		err = s.tellSome(ctx, x.learntSession, func(n int) []tag.Tag {
			tags := s.some(maxUntold)
			slices.SortFunc(tags, compareTags)
			s.note(tags[min(n, len(tags)):])
			return tags[:min(n, len(tags))]
		})
	}
	if err != nil {
		s.old = append(s.old, x.learntSession)
		x.learntSession = nil
		s.anew()
	} else {
		s.endOld(ctx)
	}
	return err
}

func (x *Steps) hearLearnt(ctx context.Context) (did bool, err error) {
	if x.learnt == nil {
		if x.learnt, err = x.a.share.store.WatchShared(ctx, learntPrefix); err != nil {
			return false, err
		}
		x.hearing = x.a.share.hearing()
		return true, nil
	}
	select {
	case e, ok := <-x.learnt:
		if !ok {
			x.learnt = nil
			return false, store.ErrUnavailable
		}
		x.hearing.take(e)
		return true, nil
	default:
		return false, nil
	}
}

// serveBlocks is one turn of blocks.serve; while that cannot, of refuse.
func (x *Steps) serveBlocks(ctx context.Context) (did bool, err error) {
	b := x.a.blocks
	if x.blocks == nil {
		if err = b.join(ctx); err == nil {
			x.blocks, err = b.store.WatchShared(ctx, blocksPrefix)
		}
		if err != nil {
			return false, errors.Join(err, x.refuse())
		}
		b.begin()
		x.blocksSynced = false
		return true, nil
	}
	if closed(b.session.Done()) {
		b.session, x.blocks = nil, nil
		return false, errors.New("the session with the store has ended")
	}
	select {
	case e, ok := <-x.blocks:
		if !ok {
			x.blocks = nil
			return false, store.ErrUnavailable
		}
		b.take(e)
		if e.Synced {
			x.blocksSynced = true
			if err := b.clear(ctx); err != nil {
				x.blocks = nil
				return false, err
			}
		}
		return true, nil
	default:
	}
	if !x.blocksSynced {
		return false, nil
	}
	select {
	case r := <-b.asked:
		if err := b.answer(ctx, r); err != nil {
			x.blocks = nil
			return false, err
		}
		return true, nil
	default:
		return false, nil
	}
}

func (x *Steps) refuse() error {
	for {
		select {
		case r := <-x.a.blocks.asked:
			x.a.blocks.refuseOne(r)
		default:
			return nil
		}
	}
}

// call takes the place of (*worker.Worker).Call, whose goroutine this is.
func (x *Steps) call(w *worker.Worker, _ context.Context, f func()) error {
	done := false
	w.Do(func() { f(); done = true })
	for !done {
		if err := w.Turn(0); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends it, as when the process is killed: nothing is written, told or closed.
func (x *Steps) Stop() { x.stop() }

// Ready reports whether it has inherited what was there.
func (x *Steps) Ready() bool { return x.ready }

// SetLinks says which interfaces the host has.
func (x *Steps) SetLinks(ls []binding.Link) { x.a.bindings.SetLinks(ls) }

// Workers serve packets when their Turn is called.
func (x *Steps) Workers() []*worker.Worker { return x.a.workers }

// Mirror is what the agent knows of the network.
func (x *Steps) Mirror() *mirror.Mirror { return x.a.mirror }

// Tables are what the agent has learnt.
func (x *Steps) Tables() *state.Tables { return x.a.tables }

// Tokens are accounted for here.
func (x *Steps) Tokens() htb.Account { return x.a.policy.Account() }

// Ports is which datapath port each local port has, as the workers are told.
func (x *Steps) Ports() *xlate.Ports { return x.a.ports.table.Load() }

// Port returns the datapath port of a virtual port.
func (x *Steps) Port(vport uuid.UUID) (datapath.Port, bool) { return x.a.ports.get(vport) }
