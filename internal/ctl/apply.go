package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

func newApply() *cobra.Command {
	var files []string
	var dryRun bool
	var until waiting
	cmd := &cobra.Command{
		Use: "apply -f FILE",
		Example: "  viaduct apply -f network.yaml\n" +
			"  viaduct apply -f network.yaml --dry-run\n" +
			"  viaduct apply -f network.yaml --wait=applied --timeout=30s\n" +
			"  viaduct get port vm1 -o yaml | sed s/10.0.1.10/10.0.1.11/ | viaduct apply -f -",
		Short: "Make the virtual network what documents say",
		Long: "Creates or replaces the objects that YAML documents describe, in one transaction: all or nothing. " +
			"What is as described is not touched.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := until.check(); err != nil {
				return err
			}
			set, err := readSet(cmd, files)
			if err != nil {
				return err
			}
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			st := &committer{Client: c}
			suffix := ""
			var changes []document.Change
			if dryRun {
				suffix = " (dry run)"
				changes, _, err = set.Plan(ctx, c)
			} else {
				changes, err = set.Apply(ctx, st)
			}
			if err == nil {
				err = printChanges(cmd, changes, suffix)
			}
			if err != nil {
				return err
			}
			return until.wait(ctx, st)
		},
	}
	fileFlag(cmd, &files)
	until.flags(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, having checked it, and change nothing")
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func fileFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "file with YAML documents, - for standard input; may be repeated")
}

func printChanges(cmd *cobra.Command, changes []document.Change, suffix string) error {
	for _, ch := range changes {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n", ch, suffix); err != nil {
			return err
		}
	}
	return nil
}

// readSet reads files of documents about the virtual network.
func readSet(cmd *cobra.Command, files []string) (*document.Set, error) {
	set := new(document.Set)
	for _, name := range files {
		s, err := readFile(cmd, name)
		if err != nil {
			return nil, err
		}
		set.Append(s)
	}
	if len(set.Others) > 0 {
		var errs document.Errors
		for _, o := range set.Others {
			errs = append(errs, &document.Error{Pos: o.Pos, Path: "kind", Err: fmt.Errorf("%q belongs to the laboratory: use \"viaduct lab\"", o.Kind)})
		}
		return nil, errs
	}
	if len(set.Docs) == 0 {
		return nil, errors.New("no documents: nothing to do")
	}
	return set, nil
}

func readFile(cmd *cobra.Command, name string) (*document.Set, error) {
	if name == "-" {
		return document.Parse(cmd.InOrStdin(), "stdin")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, exit.With(exit.Failure, err)
	}
	defer f.Close()
	return document.Parse(io.Reader(f), name)
}
