package ctl

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/viaduct-net/viaduct/internal/conf/local"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

// localSettings lets the flags of a daemon be given by file and environment too, but for those in except.
func localSettings(cmd *cobra.Command, except ...string) {
	file := cmd.Flags().String(local.File, "", "file with what the flags say, under \""+cmd.Name()+"\"; also "+local.Variable(cmd.Name(), local.File)+" (default "+local.DefaultFile+", and conf.d beside it)")
	except = append(except, local.File, "help")
	cmd.Annotations = map[string]string{notLocal: strings.Join(except, " ")}
	cmd.PreRunE = func(*cobra.Command, []string) error {
		path, required := *file, true
		if path == "" {
			path = os.Getenv(local.Variable(cmd.Name(), local.File))
		}
		if path == "" {
			path, required = local.DefaultFile, false
		}
		f, names := cmd.Flags(), []string{}
		for _, flag := range LocalSettings(cmd) {
			names = append(names, SettingName(flag))
		}
		values, err := local.Read(path, required, cmd.Name(), names, os.Environ())
		if err != nil {
			return exit.With(exit.Usage, err)
		}
		for _, name := range names {
			v, ok := values[name]
			flag := f.Lookup(strings.ReplaceAll(name, "_", "-"))
			if !ok || flag.Changed {
				continue
			}
			if err := f.Set(flag.Name, v.Text); err != nil {
				return exit.Usagef("%s: %s: %v", v.From, name, err)
			}
		}
		return nil
	}
}

// notLocal annotates a command with the flags that are no settings.
const notLocal = "viaduct_not_local"

// LocalSettings are the flags of a daemon that file and environment can give too.
func LocalSettings(cmd *cobra.Command) (flags []*pflag.Flag) {
	except := strings.Fields(cmd.Annotations[notLocal])
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(except, f.Name) {
			flags = append(flags, f)
		}
	})
	return flags
}

// SettingName is what a flag is called in a file.
func SettingName(f *pflag.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }
