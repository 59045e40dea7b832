package applied_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/applied"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// TestAsk: the highest revision is asked for, whoever asks later for less; one that is still to come is refused.
func TestAsk(t *testing.T) {
	s := mem.New()
	defer s.Close()
	var revs []int64
	for i := range 3 {
		rev, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Bridge{Meta: model.Meta{ID: uuid.UUID{15: byte(i + 1)}}}})
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
	}
	for _, c := range []struct{ ask, want int64 }{{revs[1], revs[1]}, {revs[0], revs[1]}, {revs[2], revs[2]}} {
		if err := applied.Ask(t.Context(), s, c.ask); err != nil {
			t.Fatal(err)
		}
		if got, _, err := applied.Asked(t.Context(), s); got != c.want || err != nil {
			t.Errorf("after %d: %d is asked for, want %d (%v)", c.ask, got, c.want, err)
		}
	}
	if err := applied.Ask(t.Context(), s, 1<<60); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a revision to come: %v", err)
	}
	if got, _, _ := applied.Asked(t.Context(), s); got != revs[2] {
		t.Errorf("a refused question has changed what is asked for to %d", got)
	}
}

// TestReports: of hosts whose agents run; what is none is passed over.
func TestReports(t *testing.T) {
	s := mem.New()
	defer s.Close()
	h := uuid.UUID{15: 1}
	announce := func(key, text string) {
		texts, ended := make(chan string), make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		go func() { defer close(ended); s.Announce(ctx, key, texts) }()
		t.Cleanup(func() { cancel(); <-ended })
		texts <- text
		texts <- text // the first one is there
	}
	announce(applied.Key(h), applied.Text(7))
	announce(".report/applied/nobody", "9")
	rs, err := applied.Reports(t.Context(), s)
	if err != nil || len(rs) != 1 || rs[h] != 7 {
		t.Errorf("%v, %v", rs, err)
	}
}
