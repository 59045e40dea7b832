package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// Watch implements store.Store. The stream breaks when its member of the cluster loses the
// leader, when it has fallen behind what is compacted, and at Close.
func (s *Store) Watch(ctx context.Context) (<-chan store.Event, error) {
	_, rev, err := s.readGuard(ctx) // any read gives the revision
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	out := make(chan store.Event)
	go func() {
		defer close(out)
		defer cancel()
		defer stop()
		if s.sendState(ctx, rev, out) {
			s.sendChanges(ctx, rev, out)
		}
	}()
	return out, nil
}

func send(ctx context.Context, out chan<- store.Event, e store.Event) bool {
	select {
	case out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// sendState sends what was there at rev, and Synced.
func (s *Store) sendState(ctx context.Context, rev int64, out chan<- store.Event) bool {
	for _, k := range model.Kinds {
		_, err := s.read(ctx, k, rev, func(o model.Object) {
			send(ctx, out, store.Event{Revision: rev, Object: o})
		})
		if err != nil {
			s.log.Warn("watch of the store ends", "error", err)
			return false
		}
	}
	return send(ctx, out, store.Event{Revision: rev, Synced: true, Last: true})
}

// sendChanges sends what comes after rev, until the stream breaks.
func (s *Store) sendChanges(ctx context.Context, rev int64, out chan<- store.Event) {
	// From behind all that begins with a dot.
	from, end := s.prefix+"/", clientv3.GetPrefixRangeEnd(s.prefix)
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithRev(rev + 1), clientv3.WithPrevKV()}
	for r := range s.client.Watch(clientv3.WithRequireLeader(ctx), from, opts...) {
		if r.CompactRevision > 0 {
			s.log.Warn("watch of the store ends", "error", store.ErrCompacted, "compacted", r.CompactRevision)
			return
		}
		if err := r.Err(); err != nil {
			s.log.Warn("watch of the store ends", "error", err)
			return
		}
		for _, e := range s.events(r.Events) {
			if !send(ctx, out, e) {
				return
			}
		}
	}
}

// events translates a response, which holds whole revisions, each in the order of its ops.
func (s *Store) events(in []*clientv3.Event) []store.Event {
	out := make([]store.Event, 0, len(in))
	for _, e := range in {
		t := store.Event{Revision: e.Kv.ModRevision, Deleted: e.Type == clientv3.EventTypeDelete}
		if t.Deleted {
			t.Object = s.last(e)
		} else {
			t.Object = s.object(e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
		}
		if t.Object == nil {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Revision != t.Revision {
			out[n-1].Last = true
		}
		out = append(out, t)
	}
	if n := len(out); n > 0 {
		out[n-1].Last = true
	}
	return out
}

// last is the state that a deletion ended: kind and id alone when it is compacted already.
func (s *Store) last(e *clientv3.Event) model.Object {
	k, ok := s.parseKey(e.Kv.Key)
	if !ok {
		return nil
	}
	if e.PrevKv != nil {
		if o, err := wire.Decode(k, e.PrevKv.Value, e.PrevKv.ModRevision); err == nil {
			return o
		}
	}
	o := model.New(k.Kind)
	o.GetMeta().ID = k.ID
	return o
}
