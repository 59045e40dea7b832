package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// maxReads is how many bundles are read in one request.
const maxReads = 64

// feed implements store.Feed on one stream of etcd's watch service. It does not use the client's own watches: each of those has a
// goroutine and buffers, and resumes by itself where a feed is to end, so that its consumer knows that the store is away.
type feed struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	stream pb.Watch_WatchClient
	out    chan store.BundleEvent
	wake   chan struct{} // holds one

	mu     sync.Mutex
	next   int64
	ids    map[model.Bundle]int64 // the watch of what is wanted; 0: it is to be read first. Guarded by mu
	of     map[int64]model.Bundle // the inverse. Guarded by mu
	unread []model.Bundle         // guarded by mu
	ended  []int64                // watches that nobody wants any more; guarded by mu
}

// Feed implements store.Bundles.
func (s *Store) Feed(ctx context.Context) (store.Feed, error) {
	if err := s.followable(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	end := func() { stop(); cancel() }
	// Without a leader the stream ends, as it does when the connection breaks.
	stream, err := pb.NewWatchClient(s.client.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		end()
		return nil, failure(ctx, err)
	}
	f := &feed{s: s, ctx: ctx, cancel: end, stream: stream, out: make(chan store.BundleEvent), wake: make(chan struct{}, 1),
		next: 1, ids: make(map[model.Bundle]int64), of: make(map[int64]model.Bundle)}
	var both sync.WaitGroup
	for name, run := range map[string]func() error{"requests": f.request, "events": f.receive} {
		both.Go(func() {
			defer f.cancel()
			if err := run(); err != nil && ctx.Err() == nil {
				s.log.Warn("the feed of the store ends", "at", name, "error", err)
			}
		})
	}
	go func() {
		both.Wait()
		close(f.out)
	}()
	return f, nil
}

// Events implements store.Feed.
func (f *feed) Events() <-chan store.BundleEvent { return f.out }

// Want implements store.Feed.
func (f *feed) Want(bs ...model.Bundle) {
	f.mu.Lock()
	for _, b := range bs {
		f.leave(b)
		f.ids[b] = 0
		f.unread = append(f.unread, b)
	}
	f.mu.Unlock()
	f.signal()
}

// Leave implements store.Feed.
func (f *feed) Leave(bs ...model.Bundle) {
	f.mu.Lock()
	for _, b := range bs {
		f.leave(b)
	}
	f.mu.Unlock()
	f.signal()
}

// leave is called with mu held.
func (f *feed) leave(b model.Bundle) {
	if id := f.ids[b]; id != 0 {
		delete(f.of, id)
		f.ended = append(f.ended, id)
	}
	delete(f.ids, b)
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// request reads what is wanted, and asks for what comes after.
func (f *feed) request() error {
	for {
		select {
		case <-f.wake:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
		for {
			f.mu.Lock()
			ended := f.ended
			f.ended = nil
			bs := f.unread[:min(maxReads, len(f.unread))]
			f.unread = f.unread[len(bs):]
			f.mu.Unlock()
			for _, id := range ended {
				if err := f.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}); err != nil {
					return err
				}
			}
			if len(bs) == 0 {
				break
			}
			if err := f.open(bs); err != nil {
				return err
			}
		}
	}
}

// open reads bundles and begins to watch them.
func (f *feed) open(bs []model.Bundle) error {
	wholes, err := f.read(bs)
	if err != nil {
		return err
	}
	for _, e := range wholes {
		f.mu.Lock()
		id, wanted := f.ids[e.Bundle]
		if wanted && id == 0 {
			id = f.next
			f.next++
			f.ids[e.Bundle], f.of[id] = id, e.Bundle
		} else {
			wanted = false // not any more, or it is there already
		}
		f.mu.Unlock()
		if !wanted {
			continue
		}
		if !f.send(e) {
			return f.ctx.Err()
		}
		prefix := f.s.bundlePrefix(e.Bundle)
		if err := f.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: e.Revision + 1, WatchId: id,
		}}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) send(e store.BundleEvent) bool {
	select {
	case f.out <- e:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// read reads whole bundles, all at one revision.
func (f *feed) read(bs []model.Bundle) ([]store.BundleEvent, error) {
	s := f.s
	ops := make([]clientv3.Op, len(bs))
	for i, b := range bs {
		ops[i] = clientv3.OpGet(s.bundlePrefix(b), clientv3.WithPrefix(), clientv3.WithLimit(pageSize))
	}
	bounded, cancel := context.WithTimeout(f.ctx, s.timeout)
	defer cancel()
	r, err := s.client.Txn(bounded).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	es := make([]store.BundleEvent, len(bs))
	for i, b := range bs {
		e := &es[i]
		*e = store.BundleEvent{Bundle: b, Revision: r.Header.Revision, Whole: true}
		part := r.Responses[i].GetResponseRange()
		kvs, more := part.Kvs, part.More
		for {
			for _, kv := range kvs {
				f.take(e, kv, false)
			}
			if !more {
				break
			}
			from := string(kvs[len(kvs)-1].Key) + "\x00"
			bounded, cancel := context.WithTimeout(f.ctx, s.timeout)
			p, err := s.client.Get(bounded, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.bundlePrefix(b))), clientv3.WithRev(e.Revision), clientv3.WithLimit(pageSize))
			cancel()
			if err != nil {
				return nil, err
			}
			kvs, more = p.Kvs, p.More
		}
	}
	return es, nil
}

// take adds an entry to an event. What cannot be read is logged and left out, like everywhere.
func (f *feed) take(e *store.BundleEvent, kv *mvccpb.KeyValue, deleted bool) {
	_, k, head, ok := f.s.parsePlace(kv.Key)
	switch {
	case !ok:
		f.s.log.Warn("a key in the store is none of ours", "key", string(kv.Key))
	case head && deleted:
		e.Over, e.Seq = true, 0
	case head:
		e.Seq = kv.Version
	case deleted:
		e.Gone = append(e.Gone, k)
	default:
		o, err := wire.Decode(k, kv.Value, kv.ModRevision)
		if err != nil {
			f.s.log.Warn("an object in the store cannot be read", "key", string(kv.Key), "error", err)
			return
		}
		e.Objects = append(e.Objects, o)
	}
}

// receive passes on what the store tells.
func (f *feed) receive() error {
	for {
		r, err := f.stream.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		b, wanted := f.of[r.WatchId]
		if wanted && r.Canceled {
			f.leave(b)
		}
		f.mu.Unlock()
		switch {
		case r.Created && r.Canceled:
			return fmt.Errorf("refused: %s", r.CancelReason)
		case !wanted:
		case r.CompactRevision > 0: // it was too slow to be told what has changed
			f.s.log.Info("a bundle is read anew", "bundle", b, "error", store.ErrCompacted)
			f.Want(b)
		case r.Canceled:
			return errors.New(r.CancelReason)
		default:
			if !f.tell(b, r.Events) {
				return f.ctx.Err()
			}
		}
	}
}

// tell passes on events, which are of whole transactions, one by one.
func (f *feed) tell(b model.Bundle, events []*mvccpb.Event) bool {
	for len(events) > 0 {
		e := store.BundleEvent{Bundle: b, Revision: events[0].Kv.ModRevision}
		for len(events) > 0 && events[0].Kv.ModRevision == e.Revision {
			f.take(&e, events[0].Kv, events[0].Type == mvccpb.DELETE)
			events = events[1:]
		}
		if e.Over {
			e.Objects, e.Gone = nil, nil
		}
		if !f.send(e) {
			return false
		}
	}
	return true
}
