package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// maxReads is how many bundles are read in one request.
const maxReads = 64

// maxReady is how many events may be ready that the consumer has not taken: what one transaction did to several bundles comes in an event each, and is dealt with
// together by who finds them there.
const maxReady = 64

// feed implements store.Feed on one stream of etcd's watch service. It does not use the client's own watches: each of those has a
// goroutine and buffers, and resumes by itself where a feed is to end, so that its consumer knows that the store is away.
type feed struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	stream pb.Watch_WatchClient
	out    chan store.BundleEvent
	wake   chan struct{} // holds one

	order  sync.Mutex // held while an event is passed on: the whole of a bundle goes before its changes. Before mu
	mu     sync.Mutex
	next   int64
	of     map[model.Bundle]*watched // what is wanted; guarded by mu
	ids    map[int64]*watched        // by their watch; guarded by mu
	fresh  []*watched                // without a watch; guarded by mu
	unread []*watched                // with one; guarded by mu
	ended  []int64                   // watches that nobody wants any more; guarded by mu
	marked bool                      // a mark has been asked for, and not come; guarded by mu
	behind map[model.Bundle]bool     // was told, and is to be read anew; guarded by mu
	upTo   int64                     // every change up to here of what was told has been told; guarded by mu
	early  []whole                   // have been read later than that, and wait for it; guarded by mu
	began  bool                      // something was told; guarded by mu
}

// whole is what is to be told of a bundle.
type whole struct {
	of *watched
	e  store.BundleEvent
}

// watched is a bundle. It is watched first and read then, so that whatever etcd says of all watches (Mark) is true of it from the
// moment on at which it is told.
type watched struct {
	bundle model.Bundle
	id     int64 // 0: no watch yet
	whole  int64 // the revision at which it was told; 0: it was not
	seen   int64 // that of the last change before
}

// markEvery is how often etcd is asked how far the watches are (its progress notification): it does not say while one has to catch up.
const markEvery = 20 * time.Millisecond

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
	f := &feed{s: s, ctx: ctx, cancel: end, stream: stream, out: make(chan store.BundleEvent, maxReady), wake: make(chan struct{}, 1),
		next: 1, of: make(map[model.Bundle]*watched), ids: make(map[int64]*watched), behind: make(map[model.Bundle]bool)}
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
		w := f.of[b]
		f.want(b, w != nil && w.whole != 0)
	}
	f.mu.Unlock()
	f.signal()
}

// want is called with mu held.
func (f *feed) want(b model.Bundle, told bool) {
	f.leave(b)
	if told {
		f.behind[b] = true
	}
	w := &watched{bundle: b}
	f.of[b] = w
	f.fresh = append(f.fresh, w)
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
	if w := f.of[b]; w != nil && w.id != 0 {
		delete(f.ids, w.id)
		f.ended = append(f.ended, w.id)
	}
	delete(f.of, b)
	delete(f.behind, b)
}

// Mark implements store.Feed.
func (f *feed) Mark() {
	f.mu.Lock()
	f.marked = true
	f.mu.Unlock()
	f.signal()
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// request asks for what is wanted, and reads it.
func (f *feed) request() error {
	var again <-chan time.Time
	for {
		select {
		case <-f.wake:
		case <-again:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
		if err := f.watch(); err != nil {
			return err
		}
		for f.hasUnread() {
			if err := f.open(); err != nil {
				return err
			}
		}
		f.mu.Lock()
		ask := f.marked || len(f.early) > 0
		f.mu.Unlock()
		if again = nil; ask {
			if err := f.askProgress(); err != nil {
				return err
			}
			again = time.After(markEvery)
		}
	}
}

func (f *feed) askProgress() error {
	return f.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// watch ends and begins watches.
func (f *feed) watch() error {
	f.mu.Lock()
	ended, fresh := f.ended, slices.DeleteFunc(f.fresh, func(w *watched) bool { return f.of[w.bundle] != w })
	f.ended, f.fresh = nil, nil
	for _, w := range fresh {
		w.id = f.next
		f.ids[w.id] = w
		f.next++
	}
	f.mu.Unlock()
	for _, id := range ended {
		if err := f.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}); err != nil {
			return err
		}
	}
	for _, w := range fresh {
		prefix := f.s.bundlePrefix(w.bundle)
		if err := f.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), WatchId: w.id,
		}}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) hasUnread() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.unread) > 0
}

// open reads some bundles that are watched, and tells them.
func (f *feed) open() error {
	f.mu.Lock()
	ws := slices.Clone(f.unread[:min(maxReads, len(f.unread))])
	f.unread = f.unread[len(ws):]
	began := f.began
	f.mu.Unlock()
	if began { // so that the answer is there with what is read, mostly
		if err := f.askProgress(); err != nil {
			return err
		}
	}
	bs := make([]model.Bundle, len(ws))
	for i, w := range ws {
		bs[i] = w.bundle
	}
	wholes, err := f.read(bs)
	if err != nil {
		return err
	}
	for i, w := range ws {
		if !f.tellWhole(w, wholes[i]) {
			return f.ctx.Err()
		}
	}
	return nil
}

func (f *feed) tellWhole(w *watched, e store.BundleEvent) bool {
	f.order.Lock()
	defer f.order.Unlock()
	return f.tellOrdered(w, e)
}

// tellOrdered tells a whole, or keeps it until others are as far. It is called with order held.
func (f *feed) tellOrdered(w *watched, e store.BundleEvent) bool {
	f.mu.Lock()
	tell := false
	switch {
	case f.ids[w.id] != w: // not wanted any more
	case w.seen > e.Revision: // it has changed while it was read
		f.unread = append(f.unread, w)
	case f.began && e.Revision > f.upTo:
		f.early = append(f.early, whole{w, e})
	default:
		f.upTo, f.began, tell = max(f.upTo, e.Revision), true, true
		w.whole = e.Revision
		delete(f.behind, w.bundle)
	}
	f.mu.Unlock()
	return !tell || f.send(e)
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
		if r.WatchId == clientv3.InvalidWatchID && !r.Canceled {
			if !f.mark(r.Header.Revision) {
				return f.ctx.Err()
			}
			continue
		}
		f.mu.Lock()
		w := f.ids[r.WatchId]
		switch {
		case w == nil:
		case r.Canceled && r.CompactRevision > 0: // it was too slow to be told what has changed
			f.want(w.bundle, w.whole != 0)
			f.s.log.Info("a bundle is read anew", "bundle", w.bundle, "error", store.ErrCompacted)
		case r.Created && !r.Canceled:
			f.unread = append(f.unread, w)
		}
		f.mu.Unlock()
		switch {
		case r.Created && r.Canceled:
			return fmt.Errorf("refused: %s", r.CancelReason)
		case w == nil:
		case r.Created, r.CompactRevision > 0:
			f.signal()
		case r.Canceled:
			return errors.New(r.CancelReason)
		default:
			if !f.tell(w, r.Events) {
				return f.ctx.Err()
			}
		}
	}
}

// mark passes on how far all watches are, and what has waited for that.
func (f *feed) mark(revision int64) bool {
	f.order.Lock()
	defer f.order.Unlock()
	f.mu.Lock()
	f.upTo = max(f.upTo, revision)
	early := f.early
	f.early = nil
	f.mu.Unlock()
	for _, x := range early {
		if !f.tellOrdered(x.of, x.e) {
			return false
		}
	}
	if len(early) > 0 {
		f.signal() // some may be to be read once more
	}
	f.mu.Lock()
	told := f.marked && len(f.behind) == 0
	f.marked = f.marked && !told
	f.mu.Unlock()
	return !told || f.send(store.BundleEvent{Mark: true, Revision: revision})
}

// tell passes on events, which are of whole transactions, one by one. What is in the bundle's whole, told or still to be read, is left out.
func (f *feed) tell(w *watched, events []*mvccpb.Event) bool {
	f.order.Lock()
	defer f.order.Unlock()
	f.mu.Lock()
	whole := w.whole
	if whole == 0 && len(events) > 0 {
		w.seen = events[len(events)-1].Kv.ModRevision
	}
	f.mu.Unlock()
	for len(events) > 0 && (whole == 0 || events[0].Kv.ModRevision <= whole) {
		events = events[1:]
	}
	for len(events) > 0 {
		e := store.BundleEvent{Bundle: w.bundle, Revision: events[0].Kv.ModRevision}
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
