package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func newMove() *cobra.Command {
	var to, iface string
	var noWait bool
	cmd := &cobra.Command{
		Use: "move port NAME --to HOST [--interface INTERFACE]",
		Example: "  viaduct move port vm1 --to h2\n" +
			"  viaduct move port vm1 --to h2 --interface tap7 --no-wait",
		Short: "Move a port to another host, with its connections",
		Long: "The host that has the port lets go of it and hands over what it knows of the port's connections; only then the other one " +
			"begins. A host that is dead is not waited for longer than it takes to notice.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind, err := wire.ParseKind(args[0]); err != nil || kind != model.KindPort {
				return exit.Usagef("%q cannot be moved: a port can", args[0])
			}
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			x, err := loadFor(ctx, c, model.KindPort, model.KindBinding)
			if err != nil {
				return err
			}
			port, err := x.Find(model.KindPort, args[1])
			if err != nil {
				return err
			}
			host, err := x.Find(model.KindHost, to)
			if err != nil {
				return err
			}
			id := port.GetMeta().ID
			have, ok := x.Get(model.KindBinding, id).(*model.Binding)
			if !ok {
				return fmt.Errorf("port %s is bound to no host, so there is nothing to move: bind it with a document of kind binding: %w", args[1], store.ErrNotFound)
			}
			b := *have
			b.HostID = host.GetMeta().ID
			if iface != "" {
				b.Interface = iface
			}
			if b.HostID == have.HostID && b.Interface == have.Interface && have.FromID == uuid.Nil {
				fmt.Fprintf(cmd.OutOrStdout(), "port/%s is on host %s, interface %s\n", x.Label(model.KindPort, id), to, b.Interface)
				return nil
			}
			start := time.Now()
			if _, err := c.Txn(ctx, store.Op{Verb: store.Replace, Object: &b, IfRevision: have.Revision}); err != nil {
				return err
			}
			if !noWait {
				if err := awaitMove(ctx, c, id); err != nil {
					return fmt.Errorf("port %s: host %s has not let go of it yet: %w", args[1], x.Label(model.KindHost, have.Owner()), err)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "port/%s moved to host %s, interface %s, in %d ms\n", x.Label(model.KindPort, id), x.Label(model.KindHost, b.HostID),
				b.Interface, time.Since(start).Milliseconds())
			return nil
		},
		ValidArgsFunction: completeObjects,
	}
	cmd.Flags().StringVar(&to, "to", "", "the host that is to have the port, by name or id")
	cmd.Flags().StringVar(&iface, "interface", "", "the host's interface (default: the name that it has now)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the other host has let go")
	_ = cmd.MarkFlagRequired("to") // fails only for a flag that does not exist
	return cmd
}

// awaitMove waits until nobody has to let go of the port any more.
func awaitMove(ctx context.Context, s store.Store, port uuid.UUID) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := s.Get(ctx, model.KindBinding, port)
		if err != nil {
			return err
		}
		if o.(*model.Binding).FromID == uuid.Nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
