package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// cache is the present state, or close to it, in a form that transactions are checked
// against. It is read when the first transaction comes that takes more than a part of it, and then follows a watch: a client that only reads has none.
type cache struct {
	judged // its graph is nil: nothing read, or the watch broke
	// moved is closed, and replaced, when the watch has brought something or broken.
	moved chan struct{}
	stop  context.CancelFunc // ends the watch
	used  time.Time          // by the last transaction
}

func (c *cache) signal() {
	close(c.moved)
	c.moved = make(chan struct{})
}

// drop forgets g, unless it has been replaced already.
func (c *cache) drop(g *model.Graph) {
	if c.graph == g && g != nil {
		c.graph = nil
		c.stop()
		c.signal()
	}
}

// load reads everything and begins to follow; and sees to it that there are bundles. The caller holds mu.
func (s *Store) load(ctx context.Context) error {
	if err := s.loadGraph(ctx); err != nil {
		return err
	}
	if ok, err := s.indexed(ctx); ok || err != nil {
		return err
	}
	// Of an earlier version, or empty. Whoever is faster does it.
	_, done, err := s.reindex(ctx)
	if err == nil && !done {
		_, err = s.refresh(ctx)
		s.cache.drop(s.cache.graph)
	}
	return err
}

func (s *Store) loadGraph(ctx context.Context) error {
	guard, rev, err := s.readGuard(ctx)
	if err != nil {
		return err
	}
	g := model.NewGraph()
	for _, k := range model.Kinds {
		if _, err := s.read(ctx, k, rev, func(o model.Object) { g.Load(o) }); err != nil {
			return err
		}
	}
	following, stop := context.WithCancel(s.ctx)
	s.cache = cache{judged: judged{graph: g, index: model.NewIndex(g), guard: guard}, moved: make(chan struct{}), stop: stop}
	s.following.Go(func() { s.follow(following, g, rev) })
	if s.forget > 0 {
		s.cache.used = time.Now()
		s.forgetLater(g, s.forget)
	}
	return nil
}

// forgetLater drops g once no transaction has needed it for long.
func (s *Store) forgetLater(g *model.Graph, d time.Duration) {
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cache.graph != g {
			return
		}
		if left := s.forget - time.Since(s.cache.used); left > 0 && s.ctx.Err() == nil {
			s.forgetLater(g, left)
			return
		}
		s.cache.drop(g)
		s.cache.index = nil
	})
}

// follow applies what comes after rev, until the watch breaks; then the next transaction loads anew.
func (s *Store) follow(ctx context.Context, g *model.Graph, rev int64) {
	// From the guard on: objects sort after it, what concerns no transaction before.
	end := clientv3.GetPrefixRangeEnd(s.prefix)
	for r := range s.client.Watch(clientv3.WithRequireLeader(ctx), s.guardKey(), clientv3.WithRange(end), clientv3.WithRev(rev+1)) {
		if r.Err() != nil {
			break
		}
		s.mu.Lock()
		if s.cache.graph == g {
			for _, e := range r.Events {
				s.take(g, e)
			}
			s.cache.signal()
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.drop(g)
}

// take applies one event. This client's own transactions come a second time; they are in the graph already.
func (s *Store) take(g *model.Graph, e *clientv3.Event) {
	rev := e.Kv.ModRevision
	if string(e.Kv.Key) == s.guardKey() {
		s.cache.guard = max(s.cache.guard, rev)
		return
	}
	k, ok := s.parseKey(e.Kv.Key)
	if !ok {
		return
	}
	have := g.Get(k.Kind, k.ID)
	if have != nil && have.GetMeta().Revision >= rev {
		return
	}
	c := model.Change{Old: have}
	if e.Type == clientv3.EventTypeDelete {
		g.Unload(k)
	} else if c.New = s.object(e.Kv.Key, e.Kv.Value, rev); c.New != nil {
		g.Load(c.New)
	}
	if c != (model.Change{}) {
		s.cache.index.Apply(s.cache.index.Plan(g, []model.Change{c}))
	}
}

// readGuard gives the guard key's mod revision, 0 when there is none, and the revision it was read at.
func (s *Store) readGuard(ctx context.Context) (guard, rev int64, err error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Get(bounded, s.guardKey(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, 0, failure(ctx, err)
	}
	if len(r.Kvs) > 0 {
		guard = r.Kvs[0].ModRevision
	}
	return guard, r.Header.Revision, nil
}

// refresh waits until the cache has what others had written by now. fresh: nothing was missing. The
// caller holds mu, which is released while waiting.
func (s *Store) refresh(ctx context.Context) (fresh bool, err error) {
	guard, _, err := s.readGuard(ctx)
	if err != nil {
		return false, err
	}
	if guard < s.cache.guard { // another cluster, or a restored one
		s.cache.drop(s.cache.graph)
		return false, nil
	}
	if guard == s.cache.guard {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for s.cache.graph != nil && s.cache.guard < guard {
		moved := s.cache.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-bounded.Done():
		}
		s.mu.Lock()
		if err := bounded.Err(); err != nil {
			return false, failure(ctx, err)
		}
	}
	return false, nil
}
