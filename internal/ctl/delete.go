package ctl

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func newDelete() *cobra.Command {
	var files []string
	var ifExists bool
	var until waiting
	cmd := &cobra.Command{
		Use: "delete (KIND NAME... | -f FILE)",
		Example: "  viaduct delete port vm1 vm2\n" +
			"  viaduct delete -f network.yaml --if-exists",
		Short: "Delete objects, in one transaction",
		Long:  "Names may also be ids or unique beginnings of ids. What others refer to is not deleted, unless they are deleted too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(files) > 0) == (len(args) > 0) || len(args) == 1 {
				return exit.Usagef("give either a kind and names, or -f FILE")
			}
			if err := until.check(); err != nil {
				return err
			}
			var set *document.Set
			var kind model.Kind
			var err error
			if len(files) > 0 {
				set, err = readSet(cmd, files)
			} else if kind, err = wire.ParseKind(args[0]); err != nil {
				err = exit.With(exit.Usage, err)
			}
			if err != nil {
				return err
			}
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			var changes []document.Change
			st := &committer{Client: c}
			if set != nil {
				changes, err = set.Delete(ctx, st, ifExists)
			} else {
				var x *ref.Index
				if x, err = loadFor(ctx, c, kind); err != nil {
					return err
				}
				var ops []store.Op
				if ops, changes, err = deletions(x, kind, args[1:], ifExists); err == nil && len(ops) > 0 {
					_, err = st.Txn(ctx, ops...)
				}
			}
			if err == nil {
				err = printChanges(cmd, changes, "")
			}
			if err != nil {
				return err
			}
			return until.wait(ctx, st)
		},
		ValidArgsFunction: completeObjects,
	}
	fileFlag(cmd, &files)
	until.flags(cmd)
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "pass over what does not exist")
	return cmd
}

// deletions finds the objects by their references.
func deletions(x *ref.Index, kind model.Kind, refs []string, ifExists bool) (ops []store.Op, changes []document.Change, err error) {
	seen := make(map[model.Key]bool)
	for _, r := range refs {
		o, err := x.Find(kind, strings.TrimPrefix(r, string(kind)+"/"))
		if ifExists && errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		key := model.KeyOf(o)
		if seen[key] {
			continue
		}
		seen[key] = true
		ops = append(ops, store.Op{Verb: store.Delete, Object: o, IfRevision: o.GetMeta().Revision})
		changes = append(changes, document.Change{Kind: kind, ID: key.ID, Label: x.Label(kind, key.ID), Action: document.Deleted})
	}
	return ops, changes, nil
}
