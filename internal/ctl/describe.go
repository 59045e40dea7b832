package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

func newDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe KIND NAME...",
		Example: "  viaduct describe port vm1\n" +
			"  viaduct describe bridge 3f2a",
		Short: "Show objects in full, with what refers to them",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := wire.ParseKind(args[0])
			if err != nil {
				return exit.With(exit.Usage, err)
			}
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			x, err := ref.Load(ctx, c)
			if err != nil {
				return err
			}
			objects, err := pick(x, []model.Kind{kind}, args[1:])
			if err != nil {
				return err
			}
			for i, o := range objects {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := describe(ctx, cmd.OutOrStdout(), c, x, o); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: completeObjects,
	}
}

// describe prints an object as a document, and then tables of what belongs to it.
func describe(ctx context.Context, w io.Writer, c *client.Client, x *ref.Index, o model.Object) error {
	b, err := document.Render(o, x)
	if err != nil {
		return err
	}
	own := model.KeyOf(o)
	var parts []model.Object
	for _, k := range model.Kinds {
		for _, other := range x.List(k) {
			if refersTo(other, own) {
				parts = append(parts, other)
			}
		}
	}
	states, err := statesFor(ctx, c, append(parts[:len(parts):len(parts)], o))
	if err != nil {
		return err
	}
	status, err := states.document(x, o.GetMeta().ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%srevision: %d\n%s", b, o.GetMeta().Revision, status)
	if len(parts) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printTables(w, listing{index: x, objects: parts, members: states}, false)
}

func refersTo(o model.Object, k model.Key) bool {
	if p, ok := o.(*model.Port); ok && k == (model.Key{Kind: model.KindPort, ID: p.PeerID}) {
		return true
	}
	return slices.Contains(model.Refs(o), k)
}
