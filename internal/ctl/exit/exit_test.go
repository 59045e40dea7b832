package exit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want exit.Code
	}{
		{nil, exit.OK},
		{errors.New("x"), exit.Failure},
		{store.ErrInvalid, exit.Failure},
		{exit.Usagef("x"), exit.Usage},
		{fmt.Errorf("bridge: %w", store.ErrNotFound), exit.NotFound},
		{store.ErrConflict, exit.Conflict},
		{store.ErrExists, exit.Conflict},
		{store.ErrReferenced, exit.Conflict},
		{fmt.Errorf("%w: %w", store.ErrUnavailable, os.ErrPermission), exit.Denied},
		{store.ErrUnavailable, exit.Unreachable},
		{fmt.Errorf("%w: %w", store.ErrUnavailable, context.DeadlineExceeded), exit.Timeout},
		{exit.With(exit.Timeout, store.ErrNotFound), exit.Timeout},
	} {
		if got := exit.Of(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}
