// Package ctl is the command line: what is said to a server, and the tree of commands that others hang theirs into.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// New builds the command tree; extra commands come from other rooms. Run executes it.
func New(extra ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "viaduct",
		Short: "Virtual networks for virtual machines",
		Long: "Viaduct carries the traffic of virtual networks above a physical one.\n\n" +
			"Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unreachable, 7 timeout.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	connectFlags(root)
	root.PersistentFlags().Duration("timeout", 30*time.Second, "how long to wait for the server")
	root.AddCommand(
		newServer(), newAgent(), newApply(), newGet(), newDescribe(), newDelete(), newMove(), newWatch(), newVersion(),
		newWhoami(), newToken(), newCerts(), newMan(),
	)
	root.AddCommand(extra...)
	return root
}

// Run executes root, reports an error on its error stream, and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string) int {
	started := false
	eachCommand(root, func(cmd *cobra.Command) {
		if run := cmd.RunE; run != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				started = true
				return run(cmd, args)
			}
		}
	})
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = exit.With(exit.Usage, err) // cobra did not come as far as the command
	}
	if err != nil && err.Error() != "" {
		report(cmd.ErrOrStderr(), cmd, err)
	}
	return int(exit.Of(err))
}

func eachCommand(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, fn)
	}
}

// report prints an error and what to do next.
func report(w io.Writer, cmd *cobra.Command, err error) {
	fmt.Fprintf(w, "viaduct: %v\n", err)
	if hint := hint(cmd, err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

func hint(cmd *cobra.Command, err error) string {
	var answer *client.Error
	var missing *ref.Error
	switch code := exit.Of(err); {
	case code == exit.Usage:
		return fmt.Sprintf("see \"%s --help\"", cmd.CommandPath())
	case code == exit.Unreachable && !errors.As(err, &answer):
		return "is \"viaduct server\" running there? --server or " + EnvServer + " says where it is"
	case code == exit.Denied && errors.As(err, &answer) && answer.Fix != "":
		return answer.Fix
	case errors.Is(err, model.ErrDenied):
		return "\"viaduct whoami\" tells who you are to the server; ask an operator"
	case code == exit.Denied:
		return "root may; else who may use the server's socket is set by the permissions of its file"
	case code == exit.Timeout:
		return "--timeout gives it longer; /readyz?verbose of the server says how it is"
	case errors.As(err, &missing):
		return fmt.Sprintf("\"viaduct get %s\" lists what there is", missing.Kind)
	case errors.As(err, &answer):
		return answer.Fix
	}
	return ""
}

// Dial makes a client of the server that the flags of cmd name, and a context with
// their timeout. The caller closes both.
func Dial(cmd *cobra.Command) (context.Context, *client.Client, func(), error) {
	timeout, err := cmd.Flags().GetDuration("timeout")
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := Connect(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	return ctx, c, func() { cancel(); c.Close() }, nil
}
