package confctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// value is the form of bare values, for scripts.
const value output.Form = "value"

func getCommand() *cobra.Command {
	var l layer
	c := &cobra.Command{
		Use:               "get KEY...",
		Example:           "  viaduct conf get agent.datapath.max_flow_count --host h1",
		Short:             "Show values that count, and where they come from",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeKeys,
	}
	layerFlags(c, &l, "what counts where no other template is assigned")
	form := output.Flag(c, output.Table, value)
	c.RunE = func(c *cobra.Command, keys []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		e, err := l.effective(ctx, cl)
		if err != nil {
			return err
		}
		var got []wire.ConfValue
		for _, name := range keys {
			v, err := find(e.Values, name)
			if err != nil {
				return err
			}
			got = append(got, v)
		}
		if *form == value {
			for _, v := range got {
				fmt.Fprintln(c.OutOrStdout(), text(v.Value))
			}
			return nil
		}
		return show(c, *form, got, valueTable(got))
	}
	return c
}

func find(vs []wire.ConfValue, name string) (wire.ConfValue, error) {
	var names []string
	for _, v := range vs {
		if v.Key == name {
			return v, nil
		}
		names = append(names, v.Key)
	}
	return wire.ConfValue{}, unknownKey(name, names)
}

func dumpCommand() *cobra.Command {
	var l layer
	var changed bool
	c := &cobra.Command{
		Use:     "dump",
		Example: "  viaduct conf dump --host h1",
		Short:   "Show all values that count, and where they come from",
		Args:    cobra.NoArgs,
	}
	layerFlags(c, &l, "what counts where no other template is assigned")
	c.Flags().BoolVar(&changed, "changed", false, "leave out what comes from the schema")
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		e, err := l.effective(ctx, cl)
		if err != nil {
			return err
		}
		shown := []wire.ConfValue{}
		for _, v := range e.Values {
			if !changed || v.Source != "schema" {
				shown = append(shown, v)
			}
		}
		e.Values = shown
		for _, why := range e.Ignored {
			fmt.Fprintln(c.ErrOrStderr(), "ignored:", why)
		}
		return show(c, *form, e, valueTable(shown))
	}
	return c
}

func valueTable(vs []wire.ConfValue) [][]string {
	rows := [][]string{{"KEY", "VALUE", "SOURCE"}}
	for _, v := range vs {
		rows = append(rows, []string{v.Key, text(v.Value), v.Source})
	}
	return rows
}

func schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "schema",
		Example: "  viaduct conf schema\n" +
			"  viaduct conf schema -o json",
		Short: "List all keys",
		Args:  cobra.NoArgs,
	}
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		s, err := cl.ConfSchema(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"KEY", "TYPE", "DEFAULT", "RANGE", "APPLIES"}}
		for _, k := range s.Keys {
			rows = append(rows, []string{k.Key, k.Type, text(k.Default), k.Range, applies(k.Restart)})
		}
		return show(c, *form, s, rows)
	}
	return c
}

func applies(restart bool) string {
	if restart {
		return "at restart"
	}
	return "at once"
}

func docCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "doc KEY",
		Example:           "  viaduct conf doc agent.datapath.vm_incoming_burst_capacity",
		Short:             "Explain a key",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeKeys,
	}
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		s, err := cl.ConfSchema(ctx)
		if err != nil {
			return err
		}
		var names []string
		for _, k := range s.Keys {
			if k.Key != args[0] {
				names = append(names, k.Key)
				continue
			}
			def := strings.TrimSpace(text(k.Default) + " " + k.Unit)
			return show(c, *form, k, [][]string{
				{"KEY", k.Key}, {"TYPE", k.Type}, {"RANGE", k.Range}, {"DEFAULT", def}, {"APPLIES", applies(k.Restart)}, {"", ""}, {k.Text},
			})
		}
		return unknownKey(args[0], names)
	}
	return c
}

func hostsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "hosts",
		Example: "  viaduct conf hosts",
		Short:   "Show what is set for each host, and what its agent has applied",
		Long:    "APPLIED is the store's revision whose values the agent uses, \"-\" when no agent runs. PENDING are keys that wait for a restart of the agent.",
		Args:    cobra.NoArgs,
	}
	form := output.Flag(c, output.Table)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cl, done, err := ctl.Dial(c)
		if err != nil {
			return err
		}
		defer done()
		hs, err := cl.ConfHosts(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"HOST", "TEMPLATE", "VALUES", "APPLIED", "PENDING", "PROBLEMS"}}
		for _, h := range hs.Hosts {
			row := []string{label(h), orDash(h.Template), fmt.Sprint(len(h.Values)), "-", "-", "-"}
			if a := h.Agent; a != nil {
				row[3], row[4], row[5] = fmt.Sprint(a.Revision), orDash(strings.Join(a.Pending, ",")), orDash(strings.Join(a.Problems, "; "))
			}
			rows = append(rows, row)
		}
		return show(c, *form, hs, rows)
	}
	return c
}

func label(h wire.ConfHost) string {
	if h.Name != "" {
		return h.Name
	}
	return h.ID
}
