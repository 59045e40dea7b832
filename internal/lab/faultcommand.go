package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func faultCommand(name *string) *cobra.Command {
	c := &cobra.Command{Use: "fault", Example: "  viaduct lab fault partition h1 h2\n" +
		"  viaduct lab fault partition h1 store --for 20s\n" +
		"  viaduct lab fault loss h1 h2 5%\n" +
		"  viaduct lab fault kill h2\n" +
		"  viaduct lab fault store down\n" +
		"  viaduct lab fault store up\n" +
		"  viaduct lab fault list\n" +
		"  viaduct lab fault heal",
		Short: "Break something, and mend it",
		Long: "Breaks the way between two hosts, or between a host and the store (of laboratories with several hosts), or the agent of a host, or the server (\"store\").\n" +
			"What is broken stays so until `viaduct lab fault heal`, or for as long as --for says.\n" +
			"Several commands may be given at once: each waits for its turn, for half a minute at most.\n" +
			"Partitions and losses need nftables (the command nft), delays the kernel's netem.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(
		breakCommand(name, Partition, "partition HOST HOST|store", "viaduct lab fault partition h1 h2", "Let nothing pass between two", 2),
		breakCommand(name, Loss, "loss HOST HOST|store PERCENT", "viaduct lab fault loss h1 h2 5%", "Lose some of the frames between two, in each direction", 3),
		breakCommand(name, Delay, "delay HOST HOST|store TIME", "viaduct lab fault delay h1 h2 20ms", "Delay the frames between two, in each direction", 3),
		breakCommand(name, Kill, "kill HOST|store", "viaduct lab fault kill h1", "Kill the agent of a host, or the server", 1),
		breakCommand(name, Pause, "pause HOST|store", "viaduct lab fault pause h1", "Stop the agent of a host, or the server, where it is", 1),
		storeCommand(name), healCommand(name), listFaultsCommand(name))
	return c
}

// storeCommand is other words for faults of the server.
func storeCommand(name *string) *cobra.Command {
	c := &cobra.Command{Use: "store", Example: "  viaduct lab fault store down\n" +
		"  viaduct lab fault store down --for 20s\n" +
		"  viaduct lab fault store up",
		Short: "Take the store down, and up again",
		Args:  cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(
		breakCommand(name, Kill, "down", "viaduct lab fault store down", "Kill the server, and with it the store: as `viaduct lab fault kill store`", 0, Store),
		&cobra.Command{Use: "up", Example: "  viaduct lab fault store up",
			Short: "Start the server that was killed, or have it go on when it was stopped",
			Long:  "Returns when it is ready again. Ways to the store that are broken stay so: `viaduct lab fault heal store` mends all that is of it.",
			Args:  cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				l, err := Open(*name)
				if err != nil {
					return err
				}
				faults := slices.DeleteFunc(slices.Clone(l.Faults), func(f Fault) bool { return f.Kind.between() || !f.has([]string{Store}) })
				if len(faults) == 0 {
					return fmt.Errorf("laboratory %s: nobody has taken its store down: `viaduct lab fault list` shows what is broken", l.Name)
				}
				ctx, cancel := context.WithTimeout(c.Context(), healPatience)
				defer cancel()
				return l.Heal(ctx, faults...)
			}})
	return c
}

// breakCommand makes the command of one kind of faults, of given names or of those in its arguments.
func breakCommand(name *string, kind FaultKind, use, example, short string, args int, names ...string) *cobra.Command {
	var length time.Duration
	c := &cobra.Command{Use: use, Example: "  " + example + "\n  " + example + " --for 10s", Short: short, Args: cobra.ExactArgs(args), DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := parseFault(kind, append(slices.Clone(names), args...))
			if err == nil {
				err = f.bounds()
			}
			if err != nil {
				return exit.With(exit.Usage, err)
			}
			if c.Flags().Changed("for") && length <= 0 {
				return exit.Usagef("--for %s: want a time", length)
			}
			l, err := Open(*name)
			if err != nil {
				return err
			}
			// From here on an interrupt heals.
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			if err := l.Break(ctx, f); err != nil || length == 0 {
				return err
			}
			select {
			case <-time.After(length):
			case <-ctx.Done():
			}
			if l, err = Open(l.Name); err != nil { // others may have changed it meanwhile
				return err
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healPatience)
			defer cancel()
			return l.Heal(ctx, slices.DeleteFunc(slices.Clone(l.Faults), func(g Fault) bool { return !g.has(append([]string{string(kind)}, f.Names...)) })...)
		}}
	c.Flags().DurationVar(&length, "for", 0, "wait for so long, then heal it")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && (kind == Loss || kind == Delay) {
			// What looks like flags in one word may be less than nothing of what was asked for.
			if f, e := parseFault(kind, []string{"", "", "-" + unknown.GetSpecifiedShortnames()}); e == nil {
				return f.bounds()
			}
		}
		return err
	})
	return c
}

// healPatience is for how long what was broken may take until it is ready again.
const healPatience = time.Minute

// parseFault reads the arguments of a fault's command.
func parseFault(kind FaultKind, args []string) (Fault, error) {
	f := Fault{Kind: kind, Names: args}
	if kind != Loss && kind != Delay {
		return f, nil
	}
	f.Names = args[:2]
	var err error
	if kind == Delay {
		if f.Delay, err = time.ParseDuration(args[2]); err != nil {
			return f, fmt.Errorf("delay %q: want a time of %s at most, such as 20ms", args[2], longestDelay)
		}
		return f, nil
	}
	percent, ok := strings.CutSuffix(args[2], "%")
	if f.Loss, err = strconv.ParseFloat(percent, 64); err != nil || !ok {
		return f, fmt.Errorf("loss %q: want a percentage, such as 5%%", args[2])
	}
	f.Loss /= 100
	return f, nil
}

// has says whether the words, of its kind and of names, are all the fault's.
func (f Fault) has(words []string) bool {
	for _, w := range words {
		if w != string(f.Kind) && !slices.Contains(f.Names, w) {
			return false
		}
	}
	return true
}

func kindList() string {
	var list []string
	for _, k := range kinds {
		list = append(list, string(k))
	}
	return strings.Join(list, ", ")
}

func healCommand(name *string) *cobra.Command {
	return &cobra.Command{Use: "heal [KIND] [HOST|store]...", Example: "  viaduct lab fault heal\n" +
		"  viaduct lab fault heal partition\n" +
		"  viaduct lab fault heal loss h1 h2\n" +
		"  viaduct lab fault heal store",
		Short: "Mend what is broken: all of it, or all that is of a kind and of hosts",
		Long:  "Returns when what was killed is ready again.",
		RunE: func(c *cobra.Command, args []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			for _, w := range args {
				if _, err := l.Host(w); err != nil && w != Store && !slices.Contains(kinds, FaultKind(w)) {
					return fmt.Errorf("%w, nor is that a kind of fault (%s): faults are of hosts and of %q", err, kindList(), Store)
				}
			}
			faults := slices.DeleteFunc(slices.Clone(l.Faults), func(f Fault) bool { return !f.has(args) })
			if len(faults) == 0 && len(args) > 0 {
				return fmt.Errorf("laboratory %s has no fault %q: `viaduct lab fault list` shows those it has", l.Name, strings.Join(args, " "))
			}
			ctx, cancel := context.WithTimeout(c.Context(), healPatience)
			defer cancel()
			return l.Heal(ctx, faults...)
		}}
}

func listFaultsCommand(name *string) *cobra.Command {
	var form *output.Form
	c := &cobra.Command{Use: "list", Example: "  viaduct lab fault list\n" +
		"  viaduct lab fault list -o json",
		Short: "Show what is broken", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			if form.Machine() {
				return form.Print(c.OutOrStdout(), append([]Fault{}, l.Faults...))
			}
			return writeFaults(c.OutOrStdout(), l.Faults)
		}}
	form = output.Flag(c, output.Table)
	return c
}

func writeFaults(w io.Writer, faults []Fault) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "FAULT\tSINCE\n")
	for _, f := range faults {
		fmt.Fprintf(t, "%s\t%s\n", f, f.Since.Format(time.DateTime))
	}
	return t.Flush()
}
