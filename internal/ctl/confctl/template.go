package confctl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func templateCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "template",
		Example: "  viaduct conf template list\n" +
			"  viaduct conf template assign gateway h2 h3",
		Short: "Templates: values that hosts share",
		Long:  "Every host has the template \"default\" below the one that is assigned to it.",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(templateList(), templateGet(), templateSet(), templateAssign(), templateDelete())
	return c
}

func templateList() *cobra.Command {
	c := &cobra.Command{Use: "list", Example: "  viaduct conf template list",
		Short: "List the templates", Args: cobra.NoArgs}
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		ts, err := cl.ConfTemplates(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"TEMPLATE", "VALUES", "ASSIGNED TO"}}
		for _, t := range ts.Templates {
			to := fmt.Sprint(t.Hosts, " hosts")
			if t.Name == conf.DefaultTemplate {
				to = "all hosts"
			}
			rows = append(rows, []string{t.Name, fmt.Sprint(len(t.Values)), to})
		}
		return show(c, *form, ts, rows)
	}
	return c
}

func templateGet() *cobra.Command {
	c := &cobra.Command{
		Use: "get NAME", Example: "  viaduct conf template get gateway -o yaml",
		Short: "Show a template's own values", Long: "-o yaml gives a document that import takes.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeTemplates,
	}
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		ts, err := cl.ConfTemplates(ctx)
		if err != nil {
			return err
		}
		var names []string
		for _, t := range ts.Templates {
			if t.Name != args[0] {
				names = append(names, t.Name)
				continue
			}
			rows := [][]string{{"KEY", "VALUE"}}
			for _, k := range slices.Sorted(maps.Keys(t.Values)) {
				rows = append(rows, []string{k, text(t.Values[k])})
			}
			if *form == output.YAML {
				return show(c, *form, document{Kind: "conf", Template: t.Name, Values: t.Values}, nil)
			}
			return show(c, *form, t, rows)
		}
		return &conf.UnknownTemplateError{Name: args[0], Nearest: ref.Nearest(args[0], names)}
	}
	return c
}

// document is what import takes.
type document struct {
	Kind     string         `json:"kind"`
	Template string         `json:"template"`
	Values   map[string]any `json:"values"`
}

func templateSet() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "set NAME [KEY=VALUE...]", Example: "  viaduct conf template set quiet agent.loggers.root=WARN",
		Short: "Make a template, or set values of it, all or none",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			values, err := assignments(args[1:])
			if err != nil {
				return err
			}
			return w.change(c, layer{template: args[0]}, func(ch *wire.ConfChange) { ch.Set = values })
		},
	}
	w.flags(c)
	return c
}

func templateAssign() *cobra.Command {
	var w waiting
	var none bool
	c := &cobra.Command{
		Use: "assign NAME HOST... | --none HOST...", Short: "Give hosts a template, all or none of them",
		Example: "  viaduct conf template assign gateway h2 h3\n  viaduct conf template assign --none h3",
		Args:    cobra.MinimumNArgs(1),
	}
	c.Flags().BoolVar(&none, "none", false, "take the hosts' template away")
	w.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := w.check(); err != nil {
			return err
		}
		name := ""
		if !none {
			name, args = args[0], args[1:]
		}
		if len(args) == 0 {
			return exit.Usagef("no host is given")
		}
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		ids, err := hosts(ctx, cl, args...)
		if err != nil {
			return err
		}
		var changes []wire.ConfChange
		var names []string
		for i, id := range ids {
			changes = append(changes, wire.ConfChange{Host: id, Assign: &name})
			names = append(names, layer{host: args[i]}.String())
		}
		return w.commit(c, ctx, cl, names, changes...)
	}
	return c
}

func templateDelete() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "delete NAME", Example: "  viaduct conf template delete quiet",
		Short: "Delete a template that no host has", Args: cobra.ExactArgs(1), ValidArgsFunction: completeTemplates,
		RunE: func(c *cobra.Command, args []string) error {
			return w.change(c, layer{template: args[0]}, func(ch *wire.ConfChange) { ch.Delete = true })
		},
	}
	w.flags(c)
	return c
}
