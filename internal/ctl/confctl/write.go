package confctl

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

func setCommand() *cobra.Command {
	var l layer
	var w waiting
	c := &cobra.Command{
		Use:               "set KEY VALUE | KEY=VALUE...",
		Example:           "  viaduct conf set agent.datapath.vm_incoming_burst_capacity 16 --host h1",
		Short:             "Set values, all or none",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			values, err := assignments(args)
			if err != nil {
				return err
			}
			return w.change(c, l, func(ch *wire.ConfChange) { ch.Set = values })
		},
	}
	targetFlags(c, &l)
	w.flags(c)
	return c
}

// targetFlags are those of the layer that is written.
func targetFlags(c *cobra.Command, l *layer) {
	layerFlags(c, l, "the template \"default\", which all hosts have")
	c.PreRun = func(c *cobra.Command, _ []string) {
		if c.Flags().Changed("host") {
			l.template = ""
		} else if l.template == "" {
			l.template = conf.DefaultTemplate
		}
	}
}

// assignments reads KEY VALUE or KEY=VALUE...
func assignments(args []string) (map[string]any, error) {
	if len(args) == 2 && !strings.Contains(args[0], "=") {
		return map[string]any{args[0]: args[1]}, nil
	}
	values := make(map[string]any)
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return nil, exit.Usagef("%q: want KEY VALUE, or KEY=VALUE as often as you like", a)
		}
		if _, twice := values[k]; twice {
			return nil, exit.Usagef("%s is given twice", k)
		}
		values[k] = v
	}
	return values, nil
}

func unsetCommand() *cobra.Command {
	var l layer
	var w waiting
	c := &cobra.Command{
		Use:               "unset KEY...",
		Example:           "  viaduct conf unset agent.datapath.vm_incoming_burst_capacity --host h1",
		Short:             "Remove values, all or none: the next layer's count",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeKeys,
		RunE: func(c *cobra.Command, args []string) error {
			return w.change(c, l, func(ch *wire.ConfChange) { ch.Unset = args })
		},
	}
	targetFlags(c, &l)
	w.flags(c)
	return c
}

// change makes one change of one layer.
func (w *waiting) change(c *cobra.Command, l layer, fill func(*wire.ConfChange)) error {
	if err := w.check(); err != nil {
		return err
	}
	ctx, cl, done, err := ctl.Dial(c)
	if err != nil {
		return err
	}
	defer done()
	ch, err := l.change(ctx, cl)
	if err != nil {
		return err
	}
	fill(&ch)
	return w.commit(c, ctx, cl, []string{l.String()}, ch)
}

func importCommand() *cobra.Command {
	var files []string
	var w waiting
	c := &cobra.Command{
		Use:   "import -f FILE",
		Short: "Make the changes that YAML documents of kind conf describe, all or none",
		Example: "  viaduct conf import -f - <<EOF\n" +
			"  kind: conf\n  template: gateway          # or host: NAME, with assign: TEMPLATE\n  clear: true                # first remove what it has\n" +
			"  values:\n    agent.datapath.global_incoming_burst_capacity: 256\n  EOF",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return w.importFiles(c, files) },
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "file with YAML documents, - for standard input; may be repeated")
	if err := c.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is defined above
	}
	w.flags(c)
	return c
}

func (w *waiting) importFiles(c *cobra.Command, files []string) error {
	if err := w.check(); err != nil {
		return err
	}
	var docs []conf.FileChange
	for _, name := range files {
		d, err := readFile(c, name)
		if err != nil {
			return err
		}
		docs = append(docs, d...)
	}
	ctx, cl, done, err := ctl.Dial(c)
	if err != nil {
		return err
	}
	defer done()
	changes := make([]wire.ConfChange, len(docs))
	var names []string
	for i, d := range docs {
		l := layer{d.Host, d.Template}
		ch, err := l.change(ctx, cl)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Pos, err)
		}
		ch.Assign, ch.Clear, ch.Set = d.Assign, d.Clear, make(map[string]any, len(d.Values))
		for k, v := range d.Values {
			ch.Set[k] = v
		}
		changes[i] = ch
		if !slices.Contains(names, l.String()) {
			names = append(names, l.String())
		}
	}
	return w.commit(c, ctx, cl, names, changes...)
}

func readFile(c *cobra.Command, name string) ([]conf.FileChange, error) {
	if name == "-" {
		return conf.ReadFile(c.InOrStdin(), "stdin")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, exit.With(exit.Failure, err)
	}
	defer f.Close()
	return conf.ReadFile(io.Reader(f), name)
}
