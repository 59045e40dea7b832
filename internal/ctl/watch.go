package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func newWatch() *cobra.Command {
	var form *output.Form
	cmd := &cobra.Command{
		Use: "watch [KIND...]",
		Example: "  viaduct watch\n" +
			"  viaduct watch port binding -o json",
		Short: "Print what there is, and then every change, until interrupted",
		RunE: func(cmd *cobra.Command, args []string) error {
			var kinds []model.Kind
			for _, a := range args {
				k, err := wire.ParseKind(a)
				if err != nil {
					return exit.With(exit.Usage, err)
				}
				kinds = append(kinds, k)
			}
			c, err := Connect(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			events, err := c.Watch(cmd.Context())
			if err != nil {
				return err
			}
			names := ref.New()
			for ev := range events {
				if ev.Object != nil && len(kinds) > 0 && !slices.Contains(kinds, ev.Object.Kind()) {
					names.Add(ev.Object)
					continue
				}
				if err := printEvent(cmd.OutOrStdout(), names, ev, *form); err != nil {
					return err
				}
			}
			if cmd.Context().Err() != nil {
				return nil // interrupted, as is proper
			}
			return fmt.Errorf("%w: the watch was cut", store.ErrUnavailable)
		},
	}
	form = output.StreamFlag(cmd, output.Text)
	return cmd
}

// printEvent prints one event; names learns what objects are called.
func printEvent(w io.Writer, names *ref.Index, ev store.Event, form output.Form) error {
	what := "put"
	switch {
	case ev.Synced:
		what = "synced"
	case ev.Deleted:
		what = "delete"
	}
	if form.Machine() {
		line := struct {
			Type     string          `json:"type"`
			Revision int64           `json:"revision"`
			Object   json.RawMessage `json:"object,omitempty"`
		}{Type: what, Revision: ev.Revision}
		if ev.Object != nil {
			var err error
			if line.Object, err = objectJSON(ev.Object); err != nil {
				return err
			}
		}
		return form.Next(w, line)
	}
	text := fmt.Sprintf("%d %s", ev.Revision, what)
	if ev.Object != nil {
		names.Add(ev.Object)
		text += fmt.Sprintf(" %s/%s", ev.Object.Kind(), names.Label(ev.Object.Kind(), ev.Object.GetMeta().ID))
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
