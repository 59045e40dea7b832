package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// heir is a datapath beside one of an earlier agent, whose flows it tells of until it is taken over.
type heir struct {
	*fake.Datapath
	adopting func() // called when the flows are read for the second time: first it is asked whether there are any

	mu     sync.Mutex
	before []datapath.FlowInfo // guarded by mu; nil: taken over
	dumps  int
	put    []match.Key // the flows that were there when it was taken over
}

func (h *heir) DumpFlows(fn func(*datapath.FlowInfo) bool) error {
	h.mu.Lock()
	before := h.before
	if h.dumps++; h.dumps == 2 {
		h.adopting()
	}
	h.mu.Unlock()
	if before == nil {
		return h.Datapath.DumpFlows(fn)
	}
	for _, f := range before {
		if f.Foreign = true; !fn(&f) {
			break
		}
	}
	return nil
}

func (h *heir) TakeOver() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = nil
	return h.Datapath.DumpFlows(func(f *datapath.FlowInfo) bool {
		h.put = append(h.put, f.Key)
		return true
	})
}

// slowRouters is a store that does not tell of routers until it is let.
type slowRouters struct {
	store.Bundles
	let chan struct{}
}

func (s *slowRouters) Feed(ctx context.Context) (store.Feed, error) {
	f, err := s.Bundles.Feed(ctx)
	return &slowFeed{f, ctx, s.let}, err
}

type slowFeed struct {
	store.Feed
	ctx context.Context
	let chan struct{}
}

func (f *slowFeed) Want(bs ...model.Bundle) {
	var later []model.Bundle
	bs = slices.DeleteFunc(slices.Clone(bs), func(b model.Bundle) bool {
		if b.Kind == model.BundleRouter {
			later = append(later, b)
		}
		return b.Kind == model.BundleRouter
	})
	f.Feed.Want(bs...)
	if len(later) > 0 {
		go func() {
			select {
			case <-f.let:
				f.Feed.Want(later...)
			case <-f.ctx.Done():
			}
		}()
	}
}

// An agent that simulates an earlier one's flows anew has them in its table when it takes over, although it has to load parts of
// the network for them first: else their packets miss until they are loaded, and few of them can wait.
func TestForeignFlowsAreThereAtTakeOver(t *testing.T) {
	l := newLife(t, silent()...)
	l.begin(false)
	l.serves()
	l.flow("192.0.2.1")
	l.flow("192.0.2.2")
	l.stop()

	l.dp.Reopen()
	slow := &slowRouters{let: make(chan struct{})}
	h := &heir{Datapath: l.dp, adopting: func() { time.AfterFunc(30*time.Millisecond, func() { close(slow.let) }) }}
	if err := l.dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		if f.Key.Dst == addr("192.0.2.1") || f.Key.Dst == addr("192.0.2.2") {
			h.before = append(h.before, datapath.FlowInfo{Key: f.Key, Actions: slices.Clone(f.Actions), Packets: f.Packets})
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for i := range h.before {
		if err := l.dp.DelFlows([]match.Key{h.before[i].Key}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "state")); err != nil { // it knows nothing of the network
		t.Fatal(err)
	}
	want := h.before
	l.heir, l.slow = h, slow
	l.begin(false)
	defer l.stop()
	l.serves()
	for i := range want {
		if !slices.Contains(h.put, want[i].Key) {
			t.Errorf("not there when the agent takes over: %v", want[i].Key)
		}
	}
	if len(want) != 2 || len(h.put) != len(want) {
		t.Errorf("%d flows are there when the agent takes over, before %d", len(h.put), len(want))
	}
}
