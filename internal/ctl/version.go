package ctl

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// Set by linker flags (Makefile, packaging/build.sh).
var version, commit, date string

// Version is what the build was told it is, else what it recorded of the main module.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersion() *cobra.Command {
	var form *output.Form
	cmd := &cobra.Command{
		Use: "version",
		Example: "  viaduct version\n" +
			"  viaduct version -o json",
		Short: "Print the version of this program, its commit, and what built it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build()
			if form.Machine() {
				return form.Print(cmd.OutOrStdout(), b)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "viaduct %s %s %s\ncommit %s of %s\n", b.Version, b.Go, b.Platform, b.Commit, b.Date)
			return err
		},
	}
	form = output.Flag(cmd, output.Text)
	return cmd
}

// buildInfo is what `viaduct version` tells.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // followed by "+changes" when the tree had some
	Date     string `json:"date"`   // of the commit, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func build() buildInfo {
	b := buildInfo{Version: Version(), Commit: commit, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		b.stamp(info.Settings)
	}
	b.Commit, b.Date = cmp.Or(b.Commit, "unknown"), cmp.Or(b.Date, "unknown")
	return b
}

// stamp reads what go build has recorded by itself.
func (b *buildInfo) stamp(settings []debug.BuildSetting) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				b.Commit += "+changes"
			}
		}
	}
}
