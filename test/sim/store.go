package sim

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// server is the store. What it answers is what the contract says (store.Store, store.Bundles, store.Shared); when it does, and when its watches
// break, is the simulation's choice. Watches break anywhere, and then begin with the state as it is: to those who follow one, a compaction looks the
// same. Feeds of bundles do worse than that when a fault has it so (faultFeed): those who read them are to expect it.
type server struct {
	s        *Sim
	graph    *model.Graph
	parts    *mem.Parts
	revision int64
	down     bool
	clients  []*client

	shared   map[string]*entry
	sessions []*session
}

// client is how one host's agent reaches the server. A killed agent's is closed.
type client struct {
	srv    *server
	name   string
	away   bool // the link is cut
	closed bool
	slow   time.Duration // how much longer it takes
	unsure bool          // of some writes it is not told that they were done
	feeds  []*feed
	learnt []*watch[store.SharedEvent]
	wake   func()

	crooked bool  // feeds repeat what they tell, and tell it in another order
	lossy   bool  // they also leave it out
	doubt   int64 // the revision from which something may be left out; 0: nothing is
}

var (
	_ store.Store   = (*client)(nil)
	_ store.Bundles = (*client)(nil)
	_ store.Shared  = (*client)(nil)
)

func (v *server) client(name string, wake func()) *client {
	c := &client{srv: v, name: name, wake: wake}
	v.clients = append(v.clients, c)
	return c
}

// close is what becomes of a client whose process is killed.
func (c *client) close() {
	c.closed = true
	c.breakWatches(false)
	c.srv.clients = slices.DeleteFunc(c.srv.clients, func(x *client) bool { return x == c })
}

func (c *client) reachable() error {
	if c.away || c.closed || c.srv.down {
		return store.ErrUnavailable
	}
	return nil
}

// answered is the error of a write that was done, but of which the answer is lost.
func (c *client) answered() error {
	if c.unsure && chance(c.srv.s.rnd, 3) {
		c.srv.s.logf("%s: is not told that it has written", c.name)
		return store.ErrUnavailable
	}
	return nil
}

// watchSilence is how long a watch on a link that is cut takes to notice.
const watchSilence = 3 * time.Second

// cut takes the link away, or gives it back. A watch that hears nothing for long breaks; one that soon hears again has missed nothing.
func (c *client) cut(away bool) {
	c.away = away
	if !away {
		c.deliverAll()
		return
	}
	c.srv.s.after(watchSilence, func() {
		if c.reachable() != nil {
			c.breakWatches(true)
		}
	})
}

// breakWatches ends all watches: what is under way is lost.
func (c *client) breakWatches(tell bool) {
	for _, f := range c.feeds {
		f.end()
	}
	for _, w := range c.learnt {
		w.end()
	}
	c.feeds, c.learnt = nil, nil
	if tell && !c.closed {
		c.srv.s.logf("%s: watches break", c.name)
		c.wake()
	}
}

// watch is a stream to one client. Events wait until the network has carried them; then they are in ch.
type watch[E any] struct {
	c     *client
	ch    chan E
	queue []E
	due   []int64
	last  int64
	over  bool
	match func(E) bool // nil: all
}

// room is more than is ever under way.
const room = 1 << 12

func newWatch[E any](c *client) *watch[E] { return &watch[E]{c: c, ch: make(chan E, room)} }

// push sends events; those of one call travel together, unless the watch breaks between them.
func (w *watch[E]) push(es ...E) {
	if w.over || len(es) == 0 {
		return
	}
	s := w.c.srv.s
	at := max(w.last, s.now()+int64(s.between(100*time.Microsecond, 2*time.Millisecond)+w.c.slow))
	w.last = at
	for _, e := range es {
		w.queue, w.due = append(w.queue, e), append(w.due, at)
	}
	s.after(time.Duration(at-s.now()), w.deliver)
}

// deliver hands over what has come through.
func (w *watch[E]) deliver() {
	if w.over || w.c.reachable() != nil {
		return
	}
	n := 0
	for n < len(w.queue) && w.due[n] <= w.c.srv.s.now() {
		w.ch <- w.queue[n]
		n++
	}
	if n > 0 {
		w.queue, w.due = slices.Delete(w.queue, 0, n), slices.Delete(w.due, 0, n)
		w.c.wake()
	}
}

func (w *watch[E]) end() {
	if !w.over {
		w.over = true
		close(w.ch)
	}
}

func (c *client) deliverAll() {
	for _, f := range c.feeds {
		f.deliver()
	}
	for _, w := range c.learnt {
		w.deliver()
	}
}

// breakInside breaks the feed of the network after some of what is under way, in the middle of a transaction perhaps.
func (c *client) breakInside(n int) {
	for _, f := range c.feeds {
		for i := range min(n, len(f.queue)) {
			f.ch <- f.queue[i]
		}
	}
	c.breakWatches(true)
}

// Watch implements store.Store: nobody here follows the whole network.
func (c *client) Watch(context.Context) (<-chan store.Event, error) {
	return nil, store.ErrUnavailable
}

// wholeState is the whole network as the beginning of a watch.
func wholeState(g *model.Graph, revision int64) (es []store.Event) {
	for _, k := range model.Kinds {
		for _, o := range g.List(k) {
			es = append(es, store.Event{Revision: revision, Object: o})
		}
	}
	return es
}

// Txn implements store.Store.
func (c *client) Txn(_ context.Context, ops ...store.Op) (int64, error) {
	if err := c.reachable(); err != nil {
		return 0, err
	}
	rev, err := c.srv.txn(ops...)
	if err == nil {
		err = c.answered()
	}
	return rev, err
}

// TxnWithout implements store.Shared.
func (c *client) TxnWithout(ctx context.Context, path string, ops ...store.Op) (int64, error) {
	if c.reachable() == nil && c.srv.shared[path] != nil {
		return 0, store.ErrPresent
	}
	return c.Txn(ctx, ops...)
}

// txn is a transaction, of whoever reaches the server.
func (v *server) txn(ops ...store.Op) (int64, error) {
	staged, err := v.graph.Stage(ops...)
	if err != nil {
		return 0, err
	}
	if len(staged.Changes) == 0 {
		staged.Commit(v.revision)
		return v.revision, nil
	}
	v.revision++
	parts := v.parts.Change(v.graph, staged.Changes, v.revision)
	staged.Commit(v.revision)
	v.s.oracle.changed(v.revision)
	for _, x := range staged.Changes {
		v.owned(x.Old, x.New)
	}
	for _, c := range v.clients {
		for _, f := range c.feeds {
			f.tell(parts)
		}
	}
	return v.revision, nil
}

// owned notes when a port is given to another host while the one that has it is dead.
func (v *server) owned(was, is model.Object) {
	old, ok := was.(*model.Binding)
	b, ok2 := is.(*model.Binding)
	if !ok || !ok2 || old.Owner() == b.Owner() {
		return
	}
	if _, alive := v.shared["host/"+old.Owner().String()]; !alive {
		v.s.hostOf(old.Owner()).taken[b.PortID] = v.revision
	}
}

// Get implements store.Store.
func (c *client) Get(_ context.Context, kind model.Kind, id uuid.UUID) (model.Object, error) {
	if err := c.reachable(); err != nil {
		return nil, err
	}
	o := c.srv.graph.Get(kind, id)
	if o == nil {
		return nil, &model.ObjectError{Ref: model.Ref{Kind: kind, ID: id}, Err: store.ErrNotFound}
	}
	return model.Clone(o), nil
}

// List implements store.Store.
func (c *client) List(_ context.Context, kind model.Kind) ([]model.Object, int64, error) {
	if err := c.reachable(); err != nil {
		return nil, 0, err
	}
	return c.srv.graph.List(kind), c.srv.revision, nil
}

// Close implements store.Store.
func (c *client) Close() error { c.close(); return nil }
