// Package hostctl holds the commands that look at one host's agent, through its debug socket: trace, flows, ports, rules.
package hostctl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// DefaultSocket is where `viaduct agent` listens when it is told nothing else.
const DefaultSocket = "/run/viaduct/agent.sock"

// EnvSocket is the environment variable that names another socket of an agent.
const EnvSocket = "VIADUCT_SOCKET"

// Socket is the agent's socket unless a flag names another.
func Socket() string { return cmp.Or(os.Getenv(EnvSocket), DefaultSocket) }

// Commands makes the commands.
func Commands() []*cobra.Command {
	cs := []*cobra.Command{traceCommand(), flowsCommand(), portsCommand(), rulesCommand(), topCommand(), whyCommand(), eventsCommand()}
	for _, c := range cs {
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error { return coded(run(c, args)) }
	}
	return cs
}

// coded gives an error the exit code that its cause has everywhere.
func coded(err error) error {
	switch {
	case errors.Is(err, debug.ErrUnreachable):
		return exit.With(exit.Unreachable, err)
	case errors.Is(err, debug.ErrNotFound):
		return exit.With(exit.NotFound, err)
	}
	return err
}

func socketFlag(c *cobra.Command) *string {
	return c.Flags().String("socket", Socket(), "the agent's socket; also "+EnvSocket)
}

func newTable(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(header)
	return t
}

func portsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ports",
		Example: "  viaduct ports\n" +
			"  viaduct ports -o wide\n" +
			"  viaduct ports -o yaml",
		Short: "Show the virtual ports of this host and their counters",
		Args:  cobra.NoArgs,
	}
	socket, form := socketFlag(c), output.Flag(c, output.Table, output.Wide, output.Name)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ps, err := debug.NewClient(*socket).Ports(c.Context())
		if err != nil {
			return err
		}
		switch {
		case form.Machine():
			return form.Print(c.OutOrStdout(), ps)
		case *form == output.Name:
			return printNames(c.OutOrStdout(), ps)
		}
		wide := *form == output.Wide
		head := []any{"PORT", "DEVICE", "INTERFACE", "STATUS", "RX", "TX", "MISSES", "REFUSED", "DROPPED", "CREDIT", "FLOWS"}
		if wide {
			head = append(head, "NUMBER", "ID", "WORK", "DELAY", "DROPS")
		}
		t := newTable(c.OutOrStdout(), head...)
		for _, p := range ps {
			status := p.Status
			if p.Reason != "" {
				status += ": " + p.Reason
			}
			var dropped uint64
			for _, n := range p.Drops {
				dropped += n
			}
			row := []any{p.Name, p.Device, p.Interface, status, p.RxPackets, p.TxPackets, p.Admitted, p.Drops["no_credit"], dropped, p.Credit, p.Flows}
			if wide {
				row = append(row, p.Number, p.ID, time.Duration(p.Work), time.Duration(p.Delay), p.Drops)
			}
			t.AppendRow(row)
		}
		t.Render()
		return nil
	}
	return c
}

// printNames prints what get takes; a port that is not of the topology has no name there.
func printNames(w io.Writer, ps []debug.Port) error {
	for _, p := range ps {
		if name := cmp.Or(p.Name, p.ID); name != "" {
			if _, err := fmt.Fprintf(w, "port/%s\n", name); err != nil {
				return err
			}
		}
	}
	return nil
}

func flowsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "flows",
		Example: "  viaduct flows --port vm1\n" +
			"  viaduct flows --limit 0 -o json",
		Short: "Show the flows that this host's agent has installed",
		Args:  cobra.NoArgs,
	}
	socket, form := socketFlag(c), output.Flag(c, output.Table, output.Wide)
	port := c.Flags().String("port", "", "only flows that enter at this port: name, id or interface")
	limit := c.Flags().Int("limit", 1000, "at most so many; 0: all")
	c.RunE = func(c *cobra.Command, _ []string) error {
		fs, err := debug.NewClient(*socket).Flows(c.Context(), *port, *limit)
		if err != nil {
			return err
		}
		if form.Machine() {
			return form.Print(c.OutOrStdout(), fs)
		}
		head := []any{"MATCH", "ACTIONS", "KIND", "PACKETS", "BYTES", "IDLE"}
		if *form == output.Wide {
			head = append(head, "WORKER", "READ FIELDS")
		}
		t := newTable(c.OutOrStdout(), head...)
		for _, f := range fs {
			row := []any{f.Key, f.Actions, f.Kind, f.Packets, f.Bytes, time.Duration(f.IdleNS).Round(time.Millisecond)}
			if *form == output.Wide {
				row = append(row, f.Worker, f.Mask)
			}
			t.AppendRow(row)
		}
		t.Render()
		return nil
	}
	return c
}
