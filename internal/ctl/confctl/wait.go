package confctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

// waiting is what a change waits for.
type waiting struct{ until string }

func (w *waiting) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.until, "wait", "store", "what to wait for: none or store: until it is stored; applied: until the running agents that it concerns have applied it (--timeout)")
}

func (w *waiting) check() error {
	if w.until != "none" && w.until != "store" && w.until != "applied" {
		return exit.Usagef("--wait %q: want none, store or applied", w.until)
	}
	return nil
}

// commit makes the changes, says what has become of them, and waits. names is how to call the layers.
func (w *waiting) commit(c *cobra.Command, ctx context.Context, cl *client.Client, names []string, changes ...wire.ConfChange) error {
	r, err := cl.ConfChange(ctx, changes...)
	if err != nil {
		return err
	}
	done := "configured"
	if !r.Changed {
		done = "unchanged"
	}
	for _, n := range names {
		fmt.Fprintln(c.OutOrStdout(), n, done)
	}
	if len(r.Restart) > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "note: applies when the agents are started again: %s\n", strings.Join(r.Restart, ", "))
	}
	if w.until != "applied" || !r.Changed {
		return nil
	}
	tell := func(int, int) {}
	if f, ok := c.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		tell = progress(f)
	}
	return applied(ctx, cl, r.Revision, changes, tell)
}

// progress writes a line whenever it is told other numbers than before.
func progress(w io.Writer) func(done, of int) {
	last := ""
	return func(done, of int) {
		line := fmt.Sprintf("applied by %d of %d hosts", done, of)
		if line != last {
			fmt.Fprintln(w, line)
		}
		last = line
	}
}

// pollEvery is how often hosts are looked at.
const pollEvery = 100 * time.Millisecond

// applied waits until the agents of all hosts that the changes concern have applied what was there at the revision; tell hears of each look how many have.
func applied(ctx context.Context, cl *client.Client, revision int64, changes []wire.ConfChange, tell func(done, of int)) error {
	concerned := make(map[string]bool)
	all := false
	for _, ch := range changes {
		all = all || ch.Template != "" // agents follow all templates
		concerned[ch.Host] = true
	}
	var lagging []string
	for {
		hs, err := cl.ConfHosts(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && lagging != nil:
			return exit.With(exit.Timeout, fmt.Errorf("stored, but not applied yet by %s", strings.Join(lagging, ", ")))
		case err != nil:
			return err
		}
		lagging = nil
		running := 0
		for _, h := range hs.Hosts {
			if h.Agent == nil || !all && !concerned[h.ID] {
				continue
			}
			if running++; h.Agent.Revision < revision {
				lagging = append(lagging, label(h))
			}
		}
		tell(running-len(lagging), running)
		if lagging == nil {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done(): // the next look says so
		}
	}
}
