package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// maxWrites is how many requests one transaction of Reindex has: what an etcd allows that nobody has configured.
const maxWrites = 100

// Reindex makes the bundles what they have to be, and returns how many entries were not: all of a store of an earlier version; those that
// concern what was written past this package, by hand or by an earlier version. Others may read and write meanwhile.
func (s *Store) Reindex(ctx context.Context) (mended int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for attempt := range maxAttempts {
		pause(ctx, min(attempt, 1)*attempt)
		if err := ctx.Err(); err != nil {
			return 0, failure(ctx, err)
		}
		if s.cache.graph == nil {
			if err := s.loadGraph(ctx); err != nil {
				return 0, err
			}
		}
		n, done, err := s.reindex(ctx)
		if done || err != nil {
			return n, err
		}
		// Others have written, before it or meanwhile: what seemed wrong may be what this client had not heard of.
		if _, err := s.refresh(ctx); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: other writers were faster %d times", store.ErrConflict, maxAttempts)
}

// reindex compares what is stored with what the cache says, and writes what differs, as long as nobody writes meanwhile. The caller holds mu.
func (s *Store) reindex(ctx context.Context) (n int, done bool, err error) {
	g, x := s.cache.graph, s.cache.index
	there, err := s.readPlaces(ctx)
	if err != nil {
		return 0, false, err
	}
	var ops []clientv3.Op
	touched := make(map[model.Bundle]bool)
	touch := func(b model.Bundle) {
		if !touched[b] {
			touched[b] = true
			ops = append(ops, clientv3.OpPut(s.headKey(b), ""))
		}
	}
	for _, kind := range model.Kinds {
		for o := range g.All(kind) {
			k := model.KeyOf(o)
			for _, b := range x.Of(k) {
				at := s.placeKey(b, k)
				rev, ok := there[at]
				delete(there, at)
				// Written with the object, or later.
				if ok && rev >= o.GetMeta().Revision {
					continue
				}
				text, err := wire.Encode(o)
				if err != nil {
					return 0, false, err
				}
				touch(b)
				ops = append(ops, clientv3.OpPut(at, string(text)))
				n++
			}
		}
	}
	for at := range there { // of nothing that there is
		if b, _, _, ok := s.parsePlace([]byte(at)); ok {
			touch(b)
		}
		ops = append(ops, clientv3.OpDelete(at))
		n++
	}
	ok, err := s.indexed(ctx)
	if err != nil {
		return n, false, err
	}
	if !ok {
		ops = append(ops, clientv3.OpPut(s.prefix+indexRoot, indexFormat))
	}
	for len(ops) > 0 {
		part := ops[:min(maxWrites, len(ops))]
		ops = ops[len(part):]
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Txn(bounded).If(clientv3.Compare(clientv3.ModRevision(s.guardKey()), "=", s.cache.guard)).Then(part...).Commit()
		cancel()
		if err != nil {
			return n, false, failure(ctx, err)
		}
		if !r.Succeeded {
			return n, false, nil
		}
	}
	return n, true, nil
}

// readPlaces gives the keys of all entries with their revisions, heads excepted.
func (s *Store) readPlaces(ctx context.Context) (map[string]int64, error) {
	all := make(map[string]int64)
	prefix := s.prefix + indexRoot + "/"
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Get(bounded, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(pageSize))
		cancel()
		if err != nil {
			return nil, failure(ctx, err)
		}
		for _, kv := range r.Kvs {
			if _, _, head, ok := s.parsePlace(kv.Key); !ok || !head {
				all[string(kv.Key)] = kv.ModRevision
			}
		}
		if !r.More {
			return all, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}
