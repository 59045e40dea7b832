// Package demo tells the story of a packet on a real kernel, on one host and through the tunnel to another, of a VM that moves, and then of a tenant who floods:
// it makes a laboratory, has its VMs talk, shows for each packet the stages that it really took, and checks
// that they are the ones that the design promises. It asserts no times.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
)

// Options of Run.
type Options struct {
	Name     string        // of the laboratory
	Phase    time.Duration // of each of: before, during and after the flood
	Interval time.Duration // between Alice's flows meanwhile
	Plot     int           // columns of the terminal; 0: not a terminal, plain lines
	Conf     []string      // KEY=VALUE: configuration of the host
	Out      io.Writer
}

// Command is `viaduct demo`.
func Command() *cobra.Command {
	o := Options{}
	c := &cobra.Command{Use: "demo", Example: "  viaduct demo",
		Short: "Watch packets take every stage, a VM move while it downloads, and a victim not notice a flood (needs root)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			o.Out = c.OutOrStdout()
			if f, ok := o.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				if width, _, err := term.GetSize(int(f.Fd())); err == nil {
					o.Plot = width
				}
			}
			return Run(ctx, o)
		}}
	c.Flags().StringVar(&o.Name, "name", "demo", "name of the laboratory")
	c.Flags().StringArrayVar(&o.Conf, "conf", nil, "KEY=VALUE: configuration of the host (viaduct conf); may be repeated")
	c.Flags().DurationVar(&o.Interval, "interval", 5*time.Millisecond, "between Alice's flows during the flood; longer on a slow machine, where her tokens would not last for its round trips")
	c.Flags().DurationVar(&o.Phase, "phase", 10*time.Second, "time before, during and after the flood, each")
	return c
}

// story is a run.
type story struct {
	Options
	lab   *lab.Lab
	tools tool.Runner
	agent *lab.Host // Alice's
	other *lab.Host
}

// Run tells the whole story. It fails if anything is not as promised; the laboratory is gone when it returns.
func Run(ctx context.Context, o Options) (err error) {
	set, err := document.Parse(strings.NewReader(network), "demo.yaml")
	if err != nil {
		return err
	}
	fmt.Fprint(o.Out, "Two bridges, blue and red, and a router between them. Alice and Mallory are on blue, Bob and Carol on red, all on one host;\n"+
		"Dave is on red too, on another host. Each is a network namespace; a real server and a real agent on each host carry their packets.\n\n")
	start := time.Now()
	l, err := lab.Up(ctx, lab.Options{Name: o.Name, Conf: o.Conf}, set)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.Down())
		if err == nil {
			fmt.Fprintf(o.Out, "\nAll of it held. The machine is as it was; it took %.0f s.\n", time.Since(start).Seconds())
		}
	}()
	s := &story{Options: o, lab: l, tools: tool.Runner{Command: []string{l.Binary, "lab", "tool"}}, agent: &l.Hosts[0], other: &l.Hosts[1]}
	for i, step := range steps {
		fmt.Fprintf(o.Out, "%d. %s\n", i+1, step.title)
		if err := s.take(ctx, step); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.title, err)
		}
		fmt.Fprintln(o.Out)
	}
	if err := s.move(ctx, len(steps)+1); err != nil {
		return fmt.Errorf("Dave's move: %w", err)
	}
	return s.flood(ctx, len(steps)+2)
}
