package etcd

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

var _ store.Shared = (*Store)(nil)

// sharedPrefix is beside the objects', whose watchers it does not concern.
func (s *Store) sharedPrefix() string { return strings.TrimSuffix(s.prefix, "/") + ".state/" }

// session is a lease that is kept alive.
type session struct {
	s *Store
	c *concurrency.Session
}

// Join implements store.Shared.
func (s *Store) Join(ctx context.Context, ttl time.Duration) (store.Session, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lease, err := s.client.Grant(bounded, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, failure(ctx, err)
	}
	// The lease outlives ctx: it is kept alive as long as the store is open.
	c, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID), concurrency.WithContext(s.ctx))
	if err != nil {
		return nil, failure(ctx, err)
	}
	return &session{s, c}, nil
}

func (x *session) key(path string) string { return x.s.sharedPrefix() + path }

// ended turns the refusal of a lease that is gone into the end of the session.
func (x *session) ended(ctx context.Context, err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		x.c.Orphan() // nobody keeps it alive any more; Done is closed
	}
	return failure(ctx, err)
}

// Put implements store.Session.
func (x *session) Put(ctx context.Context, path string, value []byte) error {
	bounded, cancel := context.WithTimeout(ctx, x.s.timeout)
	defer cancel()
	_, err := x.s.client.Put(bounded, x.key(path), string(value), clientv3.WithLease(x.c.Lease()))
	return x.ended(ctx, err)
}

// Claim implements store.Session.
func (x *session) Claim(ctx context.Context, path string, value []byte) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, x.s.timeout)
	defer cancel()
	key := x.key(path)
	put := clientv3.OpPut(key, string(value), clientv3.WithLease(x.c.Lease()))
	r, err := x.s.client.Txn(bounded).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(put).
		Else(orElse(clientv3.Compare(clientv3.LeaseValue(key), "=", x.c.Lease()), put,
			orElse(clientv3.Compare(clientv3.Value(key), "=", string(value)), put))).
		Commit()
	if err != nil {
		return false, x.ended(ctx, err)
	}
	if r.Succeeded {
		return true, nil
	}
	own := r.Responses[0].GetResponseTxn()
	return own.Succeeded || own.Responses[0].GetResponseTxn().Succeeded, nil
}

// orElse does then if the condition holds, and otherwise the rest.
func orElse(cond clientv3.Cmp, then clientv3.Op, rest ...clientv3.Op) clientv3.Op {
	return clientv3.OpTxn([]clientv3.Cmp{cond}, []clientv3.Op{then}, rest)
}

// Delete implements store.Session.
func (x *session) Delete(ctx context.Context, path string) error {
	bounded, cancel := context.WithTimeout(ctx, x.s.timeout)
	defer cancel()
	key := x.key(path)
	_, err := x.s.client.Txn(bounded).If(clientv3.Compare(clientv3.LeaseValue(key), "=", x.c.Lease())).Then(clientv3.OpDelete(key)).Commit()
	return failure(ctx, err)
}

// Done implements store.Session.
func (x *session) Done() <-chan struct{} { return x.c.Done() }

// Close implements store.Session.
func (x *session) Close(ctx context.Context) error {
	x.c.Orphan()
	bounded, cancel := context.WithTimeout(ctx, x.s.timeout)
	defer cancel()
	_, err := x.s.client.Revoke(bounded, x.c.Lease())
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return failure(ctx, err)
}

// WatchShared implements store.Shared.
func (s *Store) WatchShared(ctx context.Context, prefix string) (<-chan store.SharedEvent, error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	end := func() { stop(); cancel() }
	from := s.sharedPrefix() + prefix
	first, rev, err := s.readShared(ctx, from)
	if err != nil {
		end()
		return nil, err
	}
	out := make(chan store.SharedEvent)
	go func() {
		defer close(out)
		defer end()
		deliver := func(e store.SharedEvent) bool {
			select {
			case out <- e:
				return true
			case <-ctx.Done():
				return false
			}
		}
		for _, e := range first {
			if !deliver(e) {
				return
			}
		}
		if !deliver(store.SharedEvent{Revision: rev, Synced: true}) {
			return
		}
		for r := range s.client.Watch(clientv3.WithRequireLeader(ctx), from, clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
			if err := r.Err(); err != nil {
				if ctx.Err() == nil { // else whoever asked for it has ended it
					s.log.Warn("watch of the shared state ends", "prefix", prefix, "error", err)
				}
				return
			}
			for _, e := range r.Events {
				if !deliver(store.SharedEvent{Path: s.sharedPath(e.Kv.Key), Value: e.Kv.Value, Revision: e.Kv.ModRevision, Deleted: e.Type == clientv3.EventTypeDelete}) {
					return
				}
			}
		}
	}()
	return out, nil
}

func (s *Store) sharedPath(key []byte) string {
	return strings.TrimPrefix(string(key), s.sharedPrefix())
}

// readShared reads what is below a key, page by page, all at one revision.
func (s *Store) readShared(ctx context.Context, from string) (list []store.SharedEvent, rev int64, err error) {
	end := clientv3.GetPrefixRangeEnd(from)
	for {
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Get(bounded, from, clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(pageSize))
		cancel()
		if err != nil {
			return nil, 0, failure(ctx, err)
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			list = append(list, store.SharedEvent{Path: s.sharedPath(kv.Key), Value: kv.Value, Revision: kv.ModRevision})
		}
		if !r.More {
			return list, rev, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}
