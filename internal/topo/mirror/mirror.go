// Package mirror keeps an agent's copy of the virtual network: it follows the store's watch, builds
// an immutable snapshot after each transaction, and names what the change means for flows.
//
// What each change invalidates (package tag):
//
//	a port            Port; Binding when its host or interface changed
//	a bridge          Device when it came, went, or changed itself or one of its subnets; Flood when its set of ports
//	                  changed; MACEntry and Neighbour (ID: the bridge) for each seeded entry that changed
//	a router          Device when it came, went or changed itself, or when any of its routes changed
//	a chain           Chain when it came, went, or any of its rules changed
//	a host            Host when it is reached in another way, or when this host is; when it dies or lives again, also
//	                  what its ports are part of
//	a security group  Chain when it came, went, or any of its rules changed; Group, as for address groups, when the addresses
//	                  of its ports changed
//	a load balancer   Balancer when it came, went or changed itself; Members of it when those that get new connections, or their
//	                  weights, changed; Member for each whose connections may no longer go on, or may again
//	an address group  Group with each single address that came or went; without one when a subnet did, or the group itself
//
// A router's flows are invalidated together: which destinations flows have asked for is known to the flow table only, and
// a route that is new can be the better one for destinations that had another before.
//
// A mirror holds the whole network (New, Run), or what concerns a host's ports and their packets (NewPart, RunPart). A change copies the
// map (not the objects) of the kinds it concerns: about 20 ns for each object of that kind that is held.
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Change is what one transaction, or what was missed during an outage, has changed.
type Change struct {
	Snapshot *view.Snapshot // already what Mirror.Snapshot gives
	Tags     []tag.Tag      // to be invalidated; each once
	// Bindings of this host, all of them, ordered by port; nil when none of them changed.
	Bindings []Binding
	// BindingsChanged tells an empty list from an unchanged one.
	BindingsChanged bool
}

// Mirror follows a store. Snapshot and Subscribe are safe for concurrent use.
type Mirror struct {
	// To be set before Run.
	Log *slog.Logger // default slog.Default()
	// Of a mirror of a part.
	Clock   clock.Clock   // default the system's
	Idle    time.Duration // for how long nobody has to need a thing before it is let go; default DefaultIdle
	Compare time.Duration // how often what is held is compared with the store; default DefaultCompare
	Reach   int           // how many objects may be held before anybody asks for them; default DefaultReach
	// InUse says on which of some things flows depend; nil: on none. It is called in the goroutine of Run, and may use the list's memory.
	InUse func([]view.Thing) []view.Thing

	host     uuid.UUID
	snapshot atomic.Pointer[view.Snapshot]
	news     chan health.State // see SetHealth
	synced   chan struct{}     // closed after the first initial state

	// Of the goroutine in Run.
	graph    *model.Graph
	health   health.State
	routes   map[uuid.UUID][]view.Route // what each router's table was made of
	bindings []Binding
	live     live.Hosts

	part     *part           // nil: it holds the whole
	hostNews chan live.Hosts // holds one
	owners   chan owner      // see SetOwner
	heard    atomic.Bool     // see Heard
	asks     asks
	hurry    chan struct{} // holds one

	calls    chan func()   // run in the goroutine of Run
	ended    chan struct{} // closed by it
	kept     *Kept         // nil: nothing, or it has been used
	patience <-chan time.Time
	restored atomic.Bool

	mu   sync.Mutex
	subs []func(Change) // guarded by mu

	told             atomic.Int64 // see Told
	following        atomic.Bool
	changes, resyncs atomic.Uint64
	gaps, mended     atomic.Uint64
	objects, bundles atomic.Int64
}

// Stats tell how the mirror follows the store. Its revision is the snapshot's.
type Stats struct {
	Following bool   // false: the store is away, and the snapshot is the last that was known
	Changes   uint64 // transactions applied; of a mirror of a part, changes of what it holds
	Resyncs   uint64 // initial states read, the first included
	Restored  bool   // it began with what an earlier one has kept
	// Of a mirror of a part.
	Objects, Bundles int64  // that are held
	Gaps             uint64 // changes that streams have left out, as later ones told
	Mended           uint64 // bundles that differed from the store, as digests told
}

// Stats reads them. Safe for concurrent use.
func (m *Mirror) Stats() Stats {
	return Stats{Following: m.following.Load(), Changes: m.changes.Load(), Resyncs: m.resyncs.Load(), Restored: m.restored.Load(),
		Objects: m.objects.Load(), Bundles: m.bundles.Load(), Gaps: m.gaps.Load(), Mended: m.mended.Load()}
}

// New makes an empty mirror for the agent of host.
func New(host uuid.UUID) *Mirror {
	m := &Mirror{Log: slog.Default(), host: host, synced: make(chan struct{}), graph: model.NewReplica(), routes: make(map[uuid.UUID][]view.Route), news: make(chan health.State, 1), hostNews: make(chan live.Hosts, 1), owners: make(chan owner, maxOwners),
		calls: make(chan func()), ended: make(chan struct{}),
		Clock: clock.NewSystem(), Idle: DefaultIdle, Compare: DefaultCompare, Reach: DefaultReach,
		hurry: make(chan struct{}, 1),
		asks:  asks{wake: make(chan struct{}, 1), by: make(map[view.Thing]uuid.UUID), n: make(map[uuid.UUID]int)}}
	m.snapshot.Store(&view.Snapshot{
		Ports:   make(map[uuid.UUID]*view.Port),
		Bridges: make(map[uuid.UUID]*view.Bridge),
		Routers: make(map[uuid.UUID]*view.Router),
		Chains:  make(map[uuid.UUID]*view.Chain),
		Groups:  make(map[uuid.UUID]*view.AddressGroup),
		Hosts:   make(map[uuid.UUID]*view.Host),

		Security: make(map[uuid.UUID]*view.SecurityGroup),

		Balancers: make(map[uuid.UUID]*view.LoadBalancer),
	})
	return m
}

// Snapshot is the present state, never nil. It stays as it is; a change makes another.
func (m *Mirror) Snapshot() *view.Snapshot { return m.snapshot.Load() }

// Synced is closed when the first state has been read from the store.
func (m *Mirror) Synced() <-chan struct{} { return m.synced }

// Told is the revision whose changes, and those before, the subscribers have been told; the snapshot may be ahead of it. 0: none yet.
func (m *Mirror) Told() int64 { return m.told.Load() }

// Hurry has a mirror of a part find out soon up to which revision it is told: what does not concern it does not come by itself. It does not
// wait. Safe for concurrent use.
func (m *Mirror) Hurry() {
	select {
	case m.hurry <- struct{}{}:
	default:
	}
}

// Subscribe has fn called with each later change, in order, after its snapshot is published. fn runs in the
// goroutine of Run and must return soon. Subscribe before Run to see everything.
func (m *Mirror) Subscribe(fn func(Change)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subs = append(m.subs, fn)
}

// Delays between attempts to reach the store: doubled from the first to the second, with jitter.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// Run follows s until ctx ends, whose error it returns. When the stream breaks, the last snapshot stays, and what has
// changed meanwhile comes as one Change when the store is back. Call it once.
func (m *Mirror) Run(ctx context.Context, s store.Store) error {
	return m.run(ctx, func(ctx context.Context) (bool, error) { return m.follow(ctx, s) })
}

func (m *Mirror) run(ctx context.Context, follow func(context.Context) (synced bool, err error)) error {
	delay := retryMin
	defer close(m.ended)
	for {
		synced, err := follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if synced {
			delay = retryMin
		}
		m.Log.Warn("the store cannot be followed: the last known network stays", "error", err, "retry_in", delay)
		m.useKept()
		m.pause(ctx, delay/2+rand.N(delay))
		delay = min(2*delay, retryMax)
	}
}

var errBroken = errors.New("the stream broke")

// follow reads one stream to its end.
func (m *Mirror) follow(ctx context.Context, s store.Store) (synced bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch, err := begin(ctx, m, s.Watch)
	if err != nil {
		return false, err
	}
	defer m.following.Store(false)
	var st stream
	for {
		select {
		case found := <-m.news:
			m.publish(m.checked(found), m.Snapshot().Revision)
		case h := <-m.hostNews:
			m.takeHosts(h)
		case o := <-m.owners:
			m.publish(m.owned(o), m.Snapshot().Revision)
		case fn := <-m.calls:
			fn()
		case <-m.patience:
			if !st.synced {
				m.useKept()
			}
		case e, ok := <-ch:
			if !ok {
				return st.synced, errBroken
			}
			m.take(&st, e)
		}
	}
}

// stream is how far one watch has come.
type stream struct {
	batch  []store.Event // of the transaction, or the initial state, at hand
	synced bool
}

// take deals with the next event of a stream.
func (m *Mirror) take(st *stream, e store.Event) {
	if e.Synced {
		m.kept = nil
		m.publish(m.reset(st.batch), e.Revision)
		st.batch, st.synced = nil, true
		m.resyncs.Add(1)
		m.following.Store(true)
		m.announce()
		return
	}
	st.batch = append(st.batch, e)
	// Not half of a transaction, and nothing before the initial state is whole.
	if st.synced && e.Last {
		m.publish(m.apply(st.batch), e.Revision)
		m.changes.Add(1)
		st.batch = st.batch[:0]
	}
}

// announce says that there is a first state.
func (m *Mirror) announce() {
	select {
	case <-m.synced:
	default:
		close(m.synced)
	}
}

// reset makes the graph hold exactly what initial does.
func (m *Mirror) reset(initial []store.Event) dirty {
	d := newDirty()
	now := make(map[model.Key]struct{}, len(initial))
	for _, e := range initial {
		now[model.KeyOf(e.Object)] = struct{}{}
	}
	for _, k := range slices.Backward(model.Kinds) { // what refers goes first
		var gone []model.Key
		for o := range m.graph.All(k) {
			if _, ok := now[model.KeyOf(o)]; !ok {
				gone = append(gone, model.KeyOf(o))
			}
		}
		for _, key := range gone {
			m.remove(d, key)
		}
	}
	for _, e := range initial {
		if key := model.KeyOf(e.Object); !reflect.DeepEqual(m.graph.Get(key.Kind, key.ID), e.Object) {
			m.put(d, e.Object)
		}
	}
	return d
}

func (m *Mirror) apply(events []store.Event) dirty {
	d := newDirty()
	for _, e := range events {
		if e.Deleted {
			m.remove(d, model.KeyOf(e.Object))
		} else {
			m.put(d, e.Object)
		}
	}
	return d
}

func (m *Mirror) put(d dirty, o model.Object) {
	key := model.KeyOf(o)
	if old := m.graph.Get(key.Kind, key.ID); old != nil {
		d.add(m.graph, old)
	}
	m.graph.Load(o)
	d.add(m.graph, o)
}

func (m *Mirror) remove(d dirty, key model.Key) {
	if old := m.graph.Get(key.Kind, key.ID); old != nil {
		d.add(m.graph, old)
		m.graph.Unload(key)
	}
}

// publish makes the next snapshot visible, then tells what is different.
func (m *Mirror) publish(d dirty, revision int64) {
	defer m.told.Store(revision)
	old := m.Snapshot()
	s, tags := m.next(old, d, revision)
	m.snapshot.Store(s)
	c := Change{Snapshot: s, Tags: tags}
	if bs := m.rebind(s, d); !slices.Equal(bs, m.bindings) {
		m.bindings = bs
		c.Bindings, c.BindingsChanged = slices.Clone(bs), true
	}
	if len(tags) == 0 && (m.part == nil || revision == old.Revision) {
		return
	}
	m.mu.Lock()
	subs := slices.Clone(m.subs)
	m.mu.Unlock()
	for _, fn := range subs {
		fn(c)
	}
}

// rebind is the list of bindings after the ports in d have changed.
func (m *Mirror) rebind(s *view.Snapshot, d dirty) []Binding {
	if len(d.ports) == 0 {
		return m.bindings
	}
	mine := make(map[uuid.UUID]Binding, len(m.bindings))
	for _, b := range m.bindings {
		mine[b.Port] = b
	}
	for id := range d.ports {
		delete(mine, id)
		switch p := s.Port(id); {
		case p == nil || !p.Exterior():
		case p.Host == m.host && p.MovesTo == uuid.Nil:
			mine[id] = Binding{Port: id, Interface: p.Interface}
		case p.Host == m.host:
			mine[id] = Binding{Port: id, To: p.MovesTo}
		case p.MovesTo == m.host:
			mine[id] = Binding{Port: id, Interface: p.Interface, From: p.Host}
		}
	}
	return slices.SortedFunc(maps.Values(mine), func(a, b Binding) int { return slices.Compare(a.Port[:], b.Port[:]) })
}
