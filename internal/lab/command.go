package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/ctl/output"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
)

// Command is `viaduct lab`.
func Command() *cobra.Command {
	c := &cobra.Command{Use: "lab", Example: "  viaduct lab up -f two-subnets.yaml\n" +
		"  viaduct lab exec alice -- ping -c 3 10.0.2.10\n" +
		"  viaduct lab down",
		Short: "A laboratory of hosts and VMs in network namespaces",
		Long: "Makes hosts and VMs as network namespaces on this machine, with a real server and a real agent\n" +
			"for each host, from the YAML that `viaduct apply` takes and documents of kind vm.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	name := c.PersistentFlags().String("name", "", "name of the laboratory (default: the file's, or the only one there is)")
	c.AddCommand(upCommand(name), downCommand(name), execCommand(name), statusCommand(name), listCommand(),
		plugCommand(name), unplugCommand(name), moveCommand(name), faultCommand(name), tool.Command())
	return c
}

func upCommand(name *string) *cobra.Command {
	var (
		o    Options
		file string
	)
	c := &cobra.Command{Use: "up -f FILE", Example: "  viaduct lab up -f internal/lab/examples/two-subnets.yaml",
		Short: "Make a laboratory; a failed one leaves nothing behind", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			set, err := ReadFile(file)
			if err != nil {
				return err
			}
			o.Name, o.Progress = *name, c.ErrOrStderr()
			l, err := Up(ctx, o, set)
			if err != nil {
				return err
			}
			return l.writeTable(c.OutOrStdout(), l.Status(ctx))
		}}
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file")
	c.Flags().DurationVar(&o.Timeout, "timeout", time.Minute, "time at most")
	c.Flags().StringArrayVar(&o.AgentArgs, "agent-arg", nil, "further argument for every agent")
	c.Flags().StringArrayVar(&o.Conf, "conf", nil, "KEY=VALUE: configuration of all hosts (viaduct conf); may be repeated")
	_ = c.MarkFlagRequired("file") // fails only for a flag that does not exist
	return c
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{Use: "down", Example: "  viaduct lab down\n" +
		"  viaduct lab down --name two-subnets",
		Short: "Remove a laboratory and everything that belongs to it",
		Long:  "When another command is changing the laboratory, waits for it for half a minute, and then says which process that is.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			return l.Down()
		}}
}

func execCommand(name *string) *cobra.Command {
	c := &cobra.Command{Use: "exec VM [--] COMMAND [ARGUMENT...]", Example: "  viaduct lab exec alice -- ping -c 3 10.0.2.10",
		Short: "Run a command in a VM, or in a host",
		Args:  cobra.MinimumNArgs(2), DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			s, err := l.Space(args[0])
			if err != nil {
				return err
			}
			command := args[1:]
			if command[0] == "--" && len(command) > 1 {
				command = command[1:]
			}
			path, err := exec.LookPath(command[0])
			if err != nil {
				return err
			}
			env := append(os.Environ(), "VIADUCT_LAB="+l.Name, "VIADUCT_LAB_VM="+args[0])
			// The thread that is in the namespace becomes the command: terminal, signals and exit code are its own.
			return s.Do(func() error {
				return fmt.Errorf("%s: %w", path, unix.Exec(path, command, env))
			})
		}}
	c.Flags().SetInterspersed(false) // flags behind the VM are the command's
	return c
}

func statusCommand(name *string) *cobra.Command {
	var form *output.Form
	c := &cobra.Command{Use: "status", Example: "  viaduct lab status\n" +
		"  viaduct lab status -o json",
		Short: "Show a laboratory's hosts and VMs", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
			defer cancel()
			s := l.Status(ctx)
			if form.Machine() {
				return form.Print(c.OutOrStdout(), s)
			}
			return l.writeTable(c.OutOrStdout(), s)
		}}
	form = output.Flag(c, output.Table)
	return c
}

// listed is a laboratory in a list.
type listed struct {
	Name string `json:"name"`
}

func listCommand() *cobra.Command {
	var form *output.Form
	c := &cobra.Command{Use: "list", Example: "  viaduct lab list\n" +
		"  viaduct lab list -o json",
		Short: "List the laboratories of this machine", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			names, err := List()
			if err != nil {
				return err
			}
			all := make([]listed, len(names))
			for i, n := range names {
				all[i].Name = n
			}
			if form.Machine() {
				return form.Print(c.OutOrStdout(), all)
			}
			for _, n := range names {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			return nil
		}}
	form = output.Flag(c, output.Name)
	return c
}

func plugCommand(name *string) *cobra.Command {
	return &cobra.Command{Use: "plug VM", Example: "  viaduct lab plug alice",
		Short: "Plug in a VM that is not", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return withVM(*name, args[0], (*Lab).Plug) }}
}

func unplugCommand(name *string) *cobra.Command {
	return &cobra.Command{Use: "unplug VM", Example: "  viaduct lab unplug alice",
		Short: "Take a VM's interface away", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return withVM(*name, args[0], (*Lab).Unplug) }}
}

func moveCommand(name *string) *cobra.Command {
	return &cobra.Command{Use: "move VM HOST", Example: "  viaduct lab move bob h1",
		Short: "Take a running VM to another host", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			vm, err := l.VM(args[0])
			if err != nil {
				return err
			}
			to, err := l.Host(args[1])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
			defer cancel()
			return l.Move(ctx, vm, to)
		}}
}

func withVM(name, vm string, do func(*Lab, *VM) error) error {
	l, err := Open(name)
	if err != nil {
		return err
	}
	v, err := l.VM(vm)
	if err != nil {
		return err
	}
	return do(l, v)
}
