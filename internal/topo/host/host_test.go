package host

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestRegister(t *testing.T) {
	s, ctx := mem.New(), context.Background()
	defer s.Close()
	a, b := uuid.UUID{1}, uuid.UUID{2}
	for _, c := range []struct {
		id         uuid.UUID
		name, want string
		err        error
	}{
		{a, "one", "one", nil},
		{a, "one", "one", nil},
		{a, "", "one", nil},
		{b, "one", "", store.ErrExists},
		{b, "two", "two", nil},
		{a, "renamed", "renamed", nil},
	} {
		if err := Register(ctx, s, c.id, c.name); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if o, err := s.Get(ctx, model.KindHost, c.id); c.err == nil && (err != nil || o.GetMeta().Name != c.want) {
			t.Errorf("%s: %v, %v", c.name, o, err)
		}
	}
}
