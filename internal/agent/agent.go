// Package agent builds one host from the parts: the datapath, the workers, the mirror of the virtual network, what is
// bound here, and the debug socket.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/service"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/arp"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/topo/binding"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/host"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// Config of an agent: what is not configured in the store. All but the functions at the end must be set.
type Config struct {
	// Open opens the datapath, once, when the host's configuration has been read. Run closes it.
	Open         func(*conf.Settings) (datapath.Datapath, error)
	Store        store.Store
	Bundles      store.Bundles // of the same store
	Keys         store.Keys    // of the same store
	Shared       store.Shared  // of the same store
	Host         string        // the host's name in the topology
	Machine      live.Machine  // that is the host from now on
	RunDir       string        // where agent.sock is made
	StateDir     string        // where the network is kept for a start without the store; empty: it is not
	TunnelDevice string        // name of the VXLAN device by which other hosts are reached
	Log          *logs.Logs
	Version      string
	Metrics      Metrics
	// Ready, when not nil, is called once, when everything that the host knows of is served.
	Ready func()
	// Told, when not nil, is called with each change of the network once the workers have been handed it, by the one goroutine that hands
	// it to them: it must return soon.
	Told func(mirror.Change)
	// Waiting, when not nil, is called once if the store cannot be reached at the start.
	Waiting func()

	patience time.Duration // with another machine of the host's name; 0: as long as that may be dead
}

// Agent is one host's. It implements debug.Agent.
type Agent struct {
	cfg      Config
	logs     *logs.Logs
	log      *slog.Logger
	boot     conf.Resolved // what the agent was started with
	clock    clock.Clock
	cpu      func() clock.CPU // nil beside a clock that is turned by hand
	dp       datapath.Datapath
	host     *model.Host
	policy   *htb.Policy
	tables   *state.Tables
	workers  []*worker.Worker
	ports    *ports
	mirror   *mirror.Mirror
	bindings *binding.Manager
	checks   *checks
	notReady atomic.Pointer[string]
	events   *events
	troubles *troubles
	mended   atomic.Uint64 // parts of the datapath that were put back
	memory   atomic.Int64  // limitMemory's limit in bytes; 0: GOMEMLIMIT stands

	auditEvery chan time.Duration // holds the last one
	reports    chan string        // holds the last one
	problems   []string           // that were reported last; of the goroutine that follows the configuration

	hostsChanged chan struct{}  // holds one
	tunnelMu     sync.Mutex     // one opens it at a time
	tunnelOff    sync.Once      // says that there will be none
	heir         bool           // an earlier agent has left flows
	foreign      bool           // and this one's datapath cannot use them
	kept         *disk.Snapshot // what an earlier agent has kept; nil: nothing
	unconfirmed  bool           // the store has not said that this host is who it takes itself for
	self         live.Self      // after begin
	share        *sharer
	moves        *mover
	served       chan struct{} // closed when the agent is ready
	blocks       *blocks

	// How it waits: other than by sleeping and waiting for a worker where it is made to go step by step (Steps).
	sleep      func(context.Context, time.Duration) error
	call       caller
	makeTunnel func(*Tunnel) error
	jitter     func(k arp.Key, now int64) float64 // nil: at random
}

// caller has a function run on a worker's goroutine, and waits for it: (*worker.Worker).Call.
type caller func(w *worker.Worker, ctx context.Context, f func()) error

// sleep waits for a while, or until ctx ends, whose error it then returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run serves the host until ctx ends, which is no error. The datapath's ports and flows go on working
// after it; the next agent adopts them.
func Run(ctx context.Context, cfg Config) error {
	a := &Agent{
		events: newEvents(),
		cfg:    cfg, logs: cfg.Log, log: cfg.Log.For(""), clock: clock.NewSystem(), cpu: clock.CPUNow,
		hostsChanged: make(chan struct{}, 1), reports: make(chan string, 1), auditEvery: make(chan time.Duration, 1),
		served: make(chan struct{}),
		sleep:  sleep, call: (*worker.Worker).Call, makeTunnel: (*Tunnel).ensure,
	}
	a.troubles = newTroubles(a.log, a.events)
	if err := a.begin(ctx); err != nil {
		return fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if err := a.enter(ctx); err != nil {
		return fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	a.setLevels(a.boot.Settings)
	a.limitMemory(a.boot.Settings.MemoryLimit)
	var err error
	if a.dp, err = cfg.Open(a.boot.Settings); err != nil {
		return err
	}
	defer a.dp.Close()
	a.notReadyBecause("the topology has not been read yet")
	if err := a.dp.DumpFlows(func(f *datapath.FlowInfo) bool { a.heir, a.foreign = true, f.Foreign; return false }); err != nil {
		return fmt.Errorf("reading the flow table: %w", err)
	}
	a.build()
	err = a.run(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func (a *Agent) build() {
	s := a.boot.Settings
	a.policy = htb.New(s.Tokens, a.dp.RootCredit())
	a.inheritTokens()
	tables := stateConfig(s)
	a.blocks = newBlocks(a.host.ID.String(), a.cfg.Shared, a.logs.For(logStore))
	tables.Leaser, tables.Jitter = a.blocks, a.jitter
	a.tables = state.New(tables, a.clock)
	a.blocks.freed = func(p nat.Pool, first uint16) {
		a.tables.PortsFreed(p, first, func(changed tag.Tag) { a.changed(nil, []tag.Tag{changed}) })
	}
	a.mirror = a.newMirror(s)
	for i := range a.dp.Workers() {
		c, _ := a.workerConfig(s)
		c.ID, c.Host, c.Hold = i, a.host.ID, true // until connections are known: see serve
		c.Queue.Now = kernelClock(a.clock)
		a.workers = append(a.workers, worker.New(c, worker.Deps{
			Datapath: a.dp, State: a.tables, Tokens: a.policy, Clock: a.clock, CPU: a.cpu, Changed: a.changed, Hello: a.tellHost, Owns: a.mirror.SetOwner, Fault: a.faulty, Load: a.mirror.Load,
		}))
	}
	a.ports = newPorts(a.dp, a.policy, a.workers, a.tunnelKey, a.rates, a.logs.For(logDatapath))
	a.ports.events = a.events
	if k := a.kept; k != nil {
		a.mirror.Restore(mirror.Kept{Revision: k.Revision, Objects: k.Objects, Part: k.Part, Dead: k.Dead}, a.patience())
		a.mirror.SetHealth(health.Read(k.Keys, nil))
		a.blocks.restore(k.Blocks, k.Written)
	}
	a.bindings = binding.New(a.ports)
	a.checks = newChecks(a)
	a.mirror.Subscribe(a.topologyChanged)
	a.share = newSharer(a)
	if a.unconfirmed { // else the store is about to say it
		a.share.restore(a.kept.Learnt)
	}
	a.moves = newMover(a)
	a.mirror.Subscribe(a.checks.topologyChanged)
	if a.cfg.Told != nil {
		a.mirror.Subscribe(a.cfg.Told)
	}
}

// identify finds the host's object by its name, or registers it. It waits for a store that cannot be reached.
func identify(ctx context.Context, cfg *Config) (*model.Host, error) {
	s, name := cfg.Store, cfg.Host
	waiting := sync.OnceFunc(func() {
		cfg.Log.For("").Warn("the store cannot be reached: waiting for it")
		if cfg.Waiting != nil {
			cfg.Waiting()
		}
	})
	for {
		h, err := find(ctx, s, name)
		if err == nil && h == nil {
			if err = host.Register(ctx, s, uuid.New(), name); err == nil || errors.Is(err, store.ErrExists) {
				continue
			}
		}
		if !errors.Is(err, store.ErrUnavailable) {
			return h, err
		}
		waiting()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// enter makes this machine the host, unless another one is: then the agent is not to start. Without the store it goes on, and what is wrong
// becomes a trouble once the store is there.
func (a *Agent) enter(ctx context.Context) error {
	a.self = live.Self{Host: a.host.ID, Machine: a.cfg.Machine, Patience: a.cfg.patience}
	if a.unconfirmed {
		return nil
	}
	err := a.self.Enter(ctx, a.cfg.Shared, func(other live.Machine) {
		a.log.Info("another machine is this host: waiting for it to be gone, or to be alive still", "host", a.host.Name, "other", other.String())
	})
	if errors.Is(err, live.ErrTaken) {
		return fmt.Errorf("%w; if that is right, give this machine another name: viaduct agent --host NAME; if this one is right, stop the agent there", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return nil // the store has gone meanwhile: see live.Self.Run
}

// nameTrouble tells what is wrong with the host's name.
func (a *Agent) nameTrouble(err error) {
	if err != nil {
		err = fmt.Errorf("%w; give that machine, or this one, a name of its own: viaduct agent --host NAME", err)
	}
	a.troubles.set(troubleName, "two machines have the name "+a.host.Name+", and only one can be the host", err)
}

func find(ctx context.Context, s store.Store, name string) (*model.Host, error) {
	hosts, _, err := s.List(ctx, model.KindHost)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		if h.GetMeta().Name == name {
			return h.(*model.Host), nil
		}
	}
	return nil, nil
}

func (a *Agent) tunnelKey(vport uuid.UUID) uint32 {
	if p := a.mirror.Snapshot().Port(vport); p != nil {
		return p.TunnelKey
	}
	return 0
}

// topologyChanged runs in the mirror's goroutine, after the snapshot was published.
func (a *Agent) topologyChanged(c mirror.Change) {
	for _, w := range a.workers {
		w.Do(func() {
			w.SetTopology(c.Snapshot)
			w.Invalidate(c.Tags)
		})
	}
	a.ports.follow(c.Tags)
	select {
	case a.hostsChanged <- struct{}{}:
	default: // it will look anyway
	}
	if c.BindingsChanged {
		a.bindings.SetBindings(c.Bindings)
	}
	a.moves.topologyChanged(c)
}

// changed carries what one worker has learnt to the others. It may be called on any goroutine.
func (a *Agent) changed(by *worker.Worker, tags []tag.Tag) {
	if by != nil {
		a.share.note(tags)
		if len(a.workers) == 1 {
			return
		}
	}
	tags = slices.Clone(tags)
	for _, w := range a.workers {
		if w != by {
			w.Do(func() { w.Invalidate(tags) })
		}
	}
}

func (a *Agent) run(ctx context.Context) error {
	socket := filepath.Join(a.cfg.RunDir, "agent.sock")
	listener, err := debug.Listen(socket)
	if err != nil {
		return fmt.Errorf("debug socket: %w", err)
	}
	defer os.Remove(socket)
	metrics, err := a.cfg.Metrics.open()
	if err != nil {
		listener.Close()
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, cpu := range a.pins() {
		g.Go(func() error {
			if cpu != anyCPU {
				runtime.LockOSThread() // for good: a thread that was pinned is nobody else's
				if err := pinThread(cpu); err != nil {
					a.log.Warn("a packet worker is not pinned", "worker", i, "cpu", cpu, "error", err)
				}
			}
			return a.workers[i].Run(ctx)
		})
	}
	if metrics != nil {
		g.Go(func() error { return debug.ServeMetrics(ctx, metrics, a) })
	}
	g.Go(func() error { return debug.Serve(ctx, listener, a) })
	g.Go(func() error { return a.mirror.RunPart(ctx, a.cfg.Bundles) })
	g.Go(func() error { return a.confirm(ctx) })
	g.Go(func() error { return a.keepTopology(ctx) })
	g.Go(func() error { return binding.WatchLinks(ctx, a.bindings, nil, a.logs.For(logPorts)) })
	g.Go(func() error { return a.followConf(ctx) })
	g.Go(func() error { return a.reportApplied(ctx) })
	g.Go(func() error { return a.tick(ctx) })
	g.Go(func() error { return a.notice(ctx) })
	g.Go(func() error { return a.mend(ctx) })
	g.Go(func() error { return a.advertise(ctx) })
	g.Go(func() error { return a.tunnel(ctx) })
	g.Go(func() error { return a.blocks.run(ctx) })
	g.Go(func() error { return a.keepConnections(ctx) })
	g.Go(func() error { return a.moves.run(ctx) })
	g.Go(func() error { return a.share.tell(ctx) })
	g.Go(func() error { return a.share.hear(ctx) })
	g.Go(func() error {
		return a.self.Run(ctx, a.cfg.Shared, live.Kept(a.keptDead()...), a.log, a.nameTrouble, a.mirror.SetHosts)
	})
	g.Go(func() error { return a.checks.follow(ctx) })
	g.Go(func() error { return a.checks.announce(ctx) })
	g.Go(func() error { return a.checks.run(ctx) })
	g.Go(func() error { return a.takeOver(ctx) })
	g.Go(func() error { return a.followRules(ctx) })
	g.Go(func() error { service.Watch(ctx, a.log, a.alive); return nil })
	return g.Wait()
}

// alive is nil when every worker takes its turn.
func (a *Agent) alive(ctx context.Context) error {
	for i, w := range a.workers {
		if err := w.Call(ctx, func() {}); err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
	}
	return nil
}

// takeOver makes the agent ready: it waits for the topology and the ports, adopts what an earlier
// agent has left in the datapath, and from then on audits it.
func (a *Agent) takeOver(ctx context.Context) error {
	for _, step := range []<-chan struct{}{a.mirror.Synced(), a.bindings.Listed()} {
		select {
		case <-step:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := a.inherit(ctx); err != nil {
		return err
	}
	if err := a.alive(ctx); err != nil { // so that all ports take packets: see admission
		return err
	}
	a.notReadyBecause("")
	close(a.served)
	a.events.add(debug.EventReady, "", "the agent of host %s serves", a.host.Name)
	a.log.Info("ready", "host", a.host.Name, "ports", a.ports.table.Load().Len())
	if a.cfg.Ready != nil {
		a.cfg.Ready()
	}
	a.audit(ctx)
	return ctx.Err()
}

// inherit takes over what an earlier agent has left.
func (a *Agent) inherit(ctx context.Context) error {
	if err := a.hearHosts(ctx); err != nil {
		return err
	}
	a.restoreConnections()
	a.tunnelOnce() // before flows into it are judged
	if err := a.ask(ctx); err != nil {
		return err
	}
	a.notReadyBecause("flows of an earlier agent are being adopted")
	if err := a.adopt(ctx); err != nil {
		return fmt.Errorf("adopting flows: %w", err)
	}
	if heir, ok := a.dp.(datapath.Heir); ok {
		if err := a.alive(ctx); err != nil { // the turn in which the last flows were decided has put them when the next begins
			return err
		}
		if err := heir.TakeOver(); err != nil {
			return fmt.Errorf("adopting flows: %w", err)
		}
	}
	return a.ports.sweepStale()
}

// tick lets learnt state age.
func (a *Agent) tick(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		a.aged(a.tables.Tick())
	}
}

// aged has addresses asked for again, and what has expired invalidated.
func (a *Agent) aged(ask []arp.Key, expired []tag.Tag) {
	if len(expired) > 0 {
		a.share.note(expired)
		for _, w := range a.workers {
			w.Do(func() { w.Invalidate(expired) })
		}
	}
	w := a.workers[0]
	for _, k := range ask {
		w.Do(func() { w.Ask(k.ID, k.Addr) })
	}
}

// kernelClock tells the time on the clock of datapath.Miss.Time, by way of one that needs no system call.
func kernelClock(c clock.Clock) func() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return nil // delays are then not measured
	}
	offset := t.Nano() - c.Now()
	return func() int64 { return c.Now() + offset }
}
