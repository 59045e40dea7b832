package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/topo/applied"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// A whole agent answers who asks, and only then.
func TestReportsWhatIsApplied(t *testing.T) {
	h := start(t, network()...)
	has := func() int64 {
		rs, err := applied.Reports(t.Context(), h.store)
		if err != nil {
			t.Fatal(err)
		}
		return rs[ids(3)]
	}
	for i := range 3 {
		rev, err := h.store.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: uuid.UUID{9, 15: byte(i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if has() >= rev {
			t.Errorf("nobody has asked for %d, and the agent reports %d", rev, has())
		}
		if err := applied.Ask(t.Context(), h.store, rev); err != nil {
			t.Fatal(err)
		}
		h.await("the agent's report", func() bool { return has() >= rev })
	}
}

// Not before each worker has it, however far the mirror is.
func TestAppliedWhenWorkersHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		m := mirror.New(uuid.UUID{1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		busy := make(chan struct{})
		a := &Agent{mirror: m, workers: make([]*worker.Worker, 2), log: slog.New(slog.DiscardHandler)}
		calls := 0
		a.call = func(_ *worker.Worker, ctx context.Context, _ func()) error {
			if calls++; calls == 2 {
				<-busy
			}
			return ctx.Err()
		}
		rev, err := s.Txn(ctx, store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: uuid.UUID{2}}}})
		if err != nil {
			t.Fatal(err)
		}
		var has int64
		done := make(chan struct{})
		go func() { defer close(done); has, err = a.apply(ctx, rev) }()
		ended := func() bool {
			synctest.Wait()
			select {
			case <-done:
				return true
			default:
				return false
			}
		}
		if ended() {
			t.Fatal("the mirror has nothing yet")
		}
		go m.Run(ctx, s)
		<-m.Synced()
		if synctest.Wait(); ended() {
			t.Fatal("the second worker has nothing yet")
		}
		close(busy)
		if <-done; has < rev || err != nil || calls != 2 {
			t.Errorf("%d, %v, after %d calls; want %d", has, err, calls, rev)
		}
		cancel()
		if _, err = a.apply(ctx, 1<<40); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}
