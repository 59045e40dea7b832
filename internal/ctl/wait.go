package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// waiting is what a change of the virtual network waits for.
type waiting struct{ until string }

func (w *waiting) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.until, "wait", "store", "what to wait for: none or store: until the change is stored; applied: until all running agents have applied it (--timeout)")
}

func (w *waiting) check() error {
	switch w.until {
	case "none", "store", "applied":
		return nil
	}
	return exit.Usagef("--wait %q: want none, store or applied", w.until)
}

// committer remembers the revision of the last transaction; 0: there was none.
type committer struct {
	*client.Client
	revision int64
}

// Txn implements store.Store.
func (c *committer) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	rev, err := c.Client.Txn(ctx, ops...)
	if err == nil {
		c.revision = rev
	}
	return rev, err
}

// appliedEvery is how often hosts are asked.
const appliedEvery = 100 * time.Millisecond

// wait returns when every host whose agent runs has applied what c has committed; the error names those that lag.
func (w *waiting) wait(ctx context.Context, c *committer) error {
	if w.until != "applied" || c.revision == 0 {
		return nil
	}
	var last wire.Applied
	for {
		a, err := c.Applied(ctx, c.revision)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && last.Running > 0:
			return exit.With(exit.Timeout, fmt.Errorf("stored, but not applied yet by %s", lagging(last)))
		case err != nil:
			return fmt.Errorf("stored; whether it is applied is not known: %w", err)
		case a.Applied == a.Running:
			return nil
		}
		last = a
		select {
		case <-time.After(appliedEvery):
		case <-ctx.Done(): // the next question says so
		}
	}
}

// lagging names those that a is about, or says how many they are, to who may not know about hosts.
func lagging(a wire.Applied) string {
	if len(a.Lagging) > 0 {
		return strings.Join(a.Lagging, ", ")
	}
	return fmt.Sprintf("%d of %d hosts", a.Running-a.Applied, a.Running)
}
