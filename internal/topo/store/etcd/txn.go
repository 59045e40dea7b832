package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// maxAttempts bounds how often a transaction is checked anew because another writer was faster.
const maxAttempts = 50

// guardKey sorts before all kinds and has no slash: it is nobody's object.
func (s *Store) guardKey() string { return s.prefix + ".revision" }

// Txn implements store.Store. When it fails with ErrUnavailable, the transaction may
// nevertheless have been committed.
func (s *Store) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	return s.txn(ctx, "", ops)
}

// TxnWithout implements store.Shared.
func (s *Store) TxnWithout(ctx context.Context, path string, ops ...store.Op) (int64, error) {
	return s.txn(ctx, s.sharedPrefix()+path, ops)
}

// txn is a transaction that is done while there is nothing at the key absent; empty: whatever there is.
func (s *Store) txn(ctx context.Context, absent string, ops []store.Op) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.used = time.Now()
	for attempt := range maxAttempts {
		if err := ctx.Err(); err != nil {
			return 0, failure(ctx, err)
		}
		if attempt > 0 {
			pause(ctx, attempt)
		}
		rev, done, err := s.try(ctx, absent, ops)
		if done || err != nil {
			return rev, err
		}
	}
	return 0, fmt.Errorf("%w: other writers were faster %d times", store.ErrConflict, maxAttempts)
}

// pause lets competing writers pass: up to 64 ms, at random so that they do not meet again.
func pause(ctx context.Context, attempt int) {
	t := time.NewTimer(rand.N(time.Millisecond << min(attempt, 6)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// try checks and commits ops against the cached state, or against what of the present one concerns them. When the state turns out to be old, it is
// brought up to date and the result is not done.
func (s *Store) try(ctx context.Context, absent string, ops []store.Op) (rev int64, done bool, err error) {
	by := &s.cache.judged
	fresh := func() (bool, error) { return s.refresh(ctx) }
	if by.graph == nil {
		part, err := s.readScope(ctx, ops)
		if err != nil {
			return 0, false, err
		}
		if part != nil {
			by, fresh = part, func() (bool, error) { return true, nil } // as of a moment ago; the next attempt reads it anew
		} else if err := s.load(ctx); err != nil {
			return 0, false, err
		}
	}
	staged, refused := by.graph.Stage(ops...)
	if refused != nil {
		// A refusal counts only if it rests on the present state.
		if ok, err := fresh(); err != nil || !ok {
			return 0, false, err
		}
		return 0, true, fmt.Errorf("transaction refused: %w", refused)
	}
	plan := by.index.Plan(by.graph, staged.Changes)
	puts, err := s.requests(staged.Changes, plan)
	if err != nil {
		staged.Rollback()
		return 0, false, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	guard := s.guardKey()
	conditions, otherwise := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(guard), "=", by.guard)}, []clientv3.Op(nil)
	if absent != "" {
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(absent), "=", 0))
		otherwise = append(otherwise, clientv3.OpGet(absent, clientv3.WithCountOnly()))
	}
	r, err := s.client.Txn(bounded).If(conditions...).Then(append(puts, clientv3.OpPut(guard, ""))...).Else(otherwise...).Commit()
	if err != nil {
		staged.Rollback()
		if err == rpctypes.ErrTooManyOps || err == rpctypes.ErrRequestTooLarge {
			return 0, false, fmt.Errorf("%w: %d changes are more than etcd takes at once: %w", store.ErrInvalid, len(puts), err)
		}
		return 0, false, failure(ctx, err)
	}
	if !r.Succeeded {
		staged.Rollback()
		if absent != "" && r.Responses[0].GetResponseRange().Count > 0 {
			return 0, true, fmt.Errorf("transaction refused: %w", store.ErrPresent)
		}
		_, err := fresh()
		return 0, false, err
	}
	staged.Commit(r.Header.Revision)
	by.index.Apply(plan)
	by.guard = r.Header.Revision
	return r.Header.Revision, true, nil
}

// requests write the changes, and then what follows from them for bundles.
func (s *Store) requests(changes []model.Change, plan []model.Placing) ([]clientv3.Op, error) {
	ops := make([]clientv3.Op, 0, len(changes)+1)
	for _, c := range changes {
		if c.New == nil {
			ops = append(ops, clientv3.OpDelete(s.keyString(model.KeyOf(c.Old))))
			continue
		}
		val, err := wire.Encode(c.New)
		if err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(s.keyString(model.KeyOf(c.New)), string(val)))
	}
	places, err := s.places(plan, changes)
	return append(ops, places...), err
}
