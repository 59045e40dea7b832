package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

var _ store.Keys = (*Store)(nil)

// notObject refuses a key that could be an object's.
func notObject(key string) error {
	if !strings.HasPrefix(key, ".") {
		return fmt.Errorf("%w: key %q does not begin with a dot", store.ErrInvalid, key)
	}
	return nil
}

// ReadKeys implements store.Keys.
func (s *Store) ReadKeys(ctx context.Context, prefixes ...string) (map[string]string, int64, error) {
	ops := make([]clientv3.Op, len(prefixes))
	for i, p := range prefixes {
		ops[i] = clientv3.OpGet(s.prefix+p, clientv3.WithPrefix())
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Txn(bounded).Then(ops...).Commit()
	if err != nil {
		return nil, 0, failure(ctx, err)
	}
	all := make(map[string]string)
	for _, part := range r.Responses {
		for _, kv := range part.GetResponseRange().Kvs {
			all[strings.TrimPrefix(string(kv.Key), s.prefix)] = string(kv.Value)
		}
	}
	return all, r.Header.Revision, nil
}

// WriteKeys implements store.Keys.
func (s *Store) WriteKeys(ctx context.Context, guard string, since int64, changes map[string]*string) (int64, error) {
	ops := []clientv3.Op{clientv3.OpPut(s.prefix+guard, "")}
	err := notObject(guard)
	for key, value := range changes {
		err = errors.Join(err, notObject(key))
		if value == nil {
			ops = append(ops, clientv3.OpDelete(s.prefix+key))
		} else {
			ops = append(ops, clientv3.OpPut(s.prefix+key, *value))
		}
	}
	if err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Txn(bounded).
		If(clientv3.Compare(clientv3.ModRevision(s.prefix+guard), "<", since+1)).
		Then(ops...).
		Commit()
	if err != nil {
		return 0, failure(ctx, err)
	}
	if !r.Succeeded {
		return 0, fmt.Errorf("%w: somebody else has written since revision %d", store.ErrConflict, since)
	}
	return r.Header.Revision, nil
}

// WatchKeys implements store.Keys.
func (s *Store) WatchKeys(ctx context.Context, prefixes ...string) (<-chan int64, error) {
	_, rev, err := s.readGuard(ctx) // any read gives the revision
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	news := make(chan int64, 1) // the last one that was not taken
	news <- rev
	var mu sync.Mutex
	tell := func(rev int64) {
		mu.Lock()
		defer mu.Unlock()
		select {
		case old := <-news:
			rev = max(rev, old)
		default:
		}
		news <- rev
	}
	var streams sync.WaitGroup
	for _, p := range prefixes {
		streams.Go(func() {
			defer cancel() // one broken stream ends all
			for r := range s.client.Watch(clientv3.WithRequireLeader(ctx), s.prefix+p, clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
				if r.Err() != nil {
					return
				}
				if len(r.Events) > 0 {
					tell(r.Events[len(r.Events)-1].Kv.ModRevision)
				}
			}
		})
	}
	go func() {
		streams.Wait()
		stop()
		cancel()
		close(news)
	}()
	return news, nil
}

// Announce implements store.Keys.
func (s *Store) Announce(ctx context.Context, key string, values <-chan string) error {
	if err := notObject(key); err != nil {
		return err
	}
	var value string
	select {
	case v, ok := <-values:
		if !ok {
			return nil
		}
		value = v
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		done, err := s.announce(ctx, key, &value, values)
		if done {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// announce keeps the key for as long as its lease lasts. done: there is nothing more to announce.
func (s *Store) announce(ctx context.Context, key string, value *string, values <-chan string) (done bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lease, err := s.client.Grant(bounded, store.AnnounceTTL)
	if err != nil {
		return ctx.Err() != nil, ctx.Err()
	}
	defer s.revoke(lease.ID)
	alive, stop := context.WithCancel(ctx)
	defer stop()
	kept, err := s.client.KeepAlive(alive, lease.ID)
	if err != nil {
		return ctx.Err() != nil, ctx.Err()
	}
	put := func() error {
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		_, err := s.client.Put(bounded, s.prefix+key, *value, clientv3.WithLease(lease.ID))
		return err
	}
	err = put()
	for err == nil {
		select {
		case v, ok := <-values:
			if !ok {
				return true, nil
			}
			*value = v
			err = put()
		case _, ok := <-kept:
			if !ok {
				return ctx.Err() != nil, ctx.Err() // the lease has run out
			}
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
	return ctx.Err() != nil, ctx.Err()
}

// revoke takes away what a lease holds, if the store can be reached.
func (s *Store) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = s.client.Revoke(ctx, id) // else it runs out
}
