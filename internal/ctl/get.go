package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func newGet() *cobra.Command {
	var form *output.Form
	cmd := &cobra.Command{
		Use: "get KIND [NAME...]",
		Example: "  viaduct get port\n" +
			"  viaduct get port vm1 -o yaml\n" +
			"  viaduct get all -o wide",
		Short: "Show objects: of a kind, or of all",
		Long: "KIND is bridge, router, port, route, host, binding, floating_ip, chain, rule, port_group, address_group, security_group, security_group_rule, qos_policy, mirror, subnet, load_balancer, pool, pool_member, or all; names may also be ids or unique beginnings of ids. " +
			"-o yaml gives documents that apply takes, -o json what the API gives.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds := model.Kinds
			if args[0] != "all" {
				kind, err := wire.ParseKind(args[0])
				if err != nil {
					return exit.With(exit.Usage, err)
				}
				kinds = []model.Kind{kind}
			} else if len(args) > 1 {
				return exit.Usagef("names need a kind other than all")
			}
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			x, err := loadFor(ctx, c, kinds...)
			if err != nil {
				return err
			}
			objects, err := pick(x, kinds, args[1:])
			if err != nil {
				return err
			}
			states, err := statesFor(ctx, c, objects)
			if err != nil {
				return err
			}
			return printers[*form](cmd.OutOrStdout(), listing{index: x, objects: objects, single: len(args) == 2, members: states})
		},
		ValidArgsFunction: completeObjects,
	}
	form = output.Flag(cmd, output.Table, output.Wide, output.Name)
	return cmd
}

// related are the kinds that an object of a kind is shown with.
var related = map[model.Kind][]model.Kind{
	model.KindPort:    {model.KindBridge, model.KindRouter, model.KindBinding, model.KindHost, model.KindChain, model.KindPortGroup, model.KindSecurityGroup, model.KindQoSPolicy},
	model.KindSubnet:  {model.KindBridge},
	model.KindRoute:   {model.KindRouter, model.KindPort},
	model.KindHost:    {model.KindZone},
	model.KindBinding: {model.KindPort, model.KindHost},
	model.KindBridge:  {model.KindChain},
	model.KindRouter:  {model.KindChain},
	model.KindRule:    {model.KindChain, model.KindPort, model.KindPortGroup, model.KindAddressGroup, model.KindBridge, model.KindRouter},

	model.KindFloatingIP: {model.KindPort},

	model.KindMirror: {model.KindPort, model.KindBridge, model.KindRouter, model.KindPortGroup, model.KindAddressGroup},

	model.KindSecurityGroupRule: {model.KindSecurityGroup, model.KindAddressGroup},

	model.KindLoadBalancer: {model.KindRouter, model.KindPool},
	model.KindPoolMember:   {model.KindPool, model.KindLoadBalancer, model.KindHost},
}

// loadFor reads the kinds and those they are shown with.
func loadFor(ctx context.Context, s store.Store, kinds ...model.Kind) (*ref.Index, error) {
	want := make(map[model.Kind]bool)
	for _, k := range kinds {
		want[k] = true
		for _, r := range related[k] {
			want[r] = true
		}
	}
	var list []model.Kind
	for _, k := range model.Kinds {
		if want[k] {
			list = append(list, k)
		}
	}
	return ref.Load(ctx, s, list...)
}

// pick finds the named objects, or all of the kinds, ordered by kind and name.
func pick(x *ref.Index, kinds []model.Kind, names []string) ([]model.Object, error) {
	var objects []model.Object
	if len(names) == 0 {
		for _, k := range kinds {
			objects = append(objects, x.List(k)...)
		}
		return objects, nil
	}
	for _, n := range names {
		o, err := x.Find(kinds[0], n)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func completeObjects(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var kinds []string
		for _, k := range model.Kinds {
			kinds = append(kinds, string(k))
		}
		return kinds, cobra.ShellCompDirectiveNoFileComp
	}
	kind, err := wire.ParseKind(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, c, done, err := Dial(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer done()
	x, err := loadFor(ctx, c, kind)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, o := range x.List(kind) {
		names = append(names, x.Label(kind, o.GetMeta().ID))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
