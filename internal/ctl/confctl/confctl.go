// Package confctl is the command "conf": what operators set for hosts, in layers that the server keeps.
package confctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Command makes the command.
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "conf",
		Short: "Configure hosts",
		Long: "Values are looked for, strongest first, in what is set for the host, in the template that is assigned to it, in the template \"default\", " +
			"and in the schema. Agents apply changes at once, but for keys that say otherwise.",
		Example: "  viaduct conf set agent.datapath.vm_incoming_burst_capacity 16 --host h1\n" +
			"  viaduct conf template assign gateway h2 h3\n" +
			"  viaduct conf dump --host h2",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(getCommand(), setCommand(), unsetCommand(), dumpCommand(), docCommand(), schemaCommand(), templateCommand(), hostsCommand(), importCommand())
	return c
}

// layer is which one --host or --template name.
type layer struct{ host, template string }

func layerFlags(c *cobra.Command, l *layer, what string) {
	c.Flags().StringVar(&l.host, "host", "", "host: name, id or unique beginning of an id")
	c.Flags().StringVar(&l.template, "template", "", "template; with neither flag: "+what)
	c.MarkFlagsMutuallyExclusive("host", "template")
	for name, complete := range map[string]cobra.CompletionFunc{"host": completeHosts, "template": completeTemplates} {
		if err := c.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // the flag is defined above
		}
	}
}

// String is how messages call it.
func (l layer) String() string {
	if l.host != "" {
		return "host/" + l.host
	}
	return "template/" + l.template
}

// hosts resolves names to ids.
func hosts(ctx context.Context, c *client.Client, names ...string) ([]string, error) {
	x, err := ref.Load(ctx, c, model.KindHost)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(names))
	for i, n := range names {
		o, err := x.Find(model.KindHost, n)
		if err != nil {
			return nil, err
		}
		ids[i] = o.GetMeta().ID.String()
	}
	return ids, nil
}

// change is an empty change of the layer.
func (l layer) change(ctx context.Context, c *client.Client) (wire.ConfChange, error) {
	if l.host == "" {
		return wire.ConfChange{Template: l.template}, nil
	}
	ids, err := hosts(ctx, c, l.host)
	if err != nil {
		return wire.ConfChange{}, err
	}
	return wire.ConfChange{Host: ids[0]}, nil
}

// effective is what counts with the layer.
func (l layer) effective(ctx context.Context, c *client.Client) (wire.ConfEffective, error) {
	host := ""
	if l.host != "" {
		ids, err := hosts(ctx, c, l.host)
		if err != nil {
			return wire.ConfEffective{}, err
		}
		host = ids[0]
	}
	return c.ConfEffective(ctx, host, l.template)
}

// unknownKey finds out what may have been meant.
func unknownKey(name string, keys []string) error {
	if _, err := conf.Find(name); err != nil {
		return err
	}
	// The server is of another version.
	return exit.With(exit.NotFound, fmt.Errorf("the server has no key %q; it has %d others", name, len(keys)))
}

// completeKeys completes names of keys, from this program's schema: it needs no server.
func completeKeys(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, k := range conf.Schema() {
		if strings.HasPrefix(k.Name, prefix) && !slices.Contains(args, k.Name) {
			out = append(out, k.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func completeTemplates(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cl, done, err := ctl.Dial(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer done()
	ts, err := cl.ConfTemplates(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, t := range ts.Templates {
		out = append(out, t.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func completeHosts(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cl, done, err := ctl.Dial(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer done()
	x, err := ref.Load(ctx, cl, model.KindHost)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, o := range x.List(model.KindHost) {
		out = append(out, x.Label(model.KindHost, o.GetMeta().ID))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
