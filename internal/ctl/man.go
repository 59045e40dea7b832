package ctl

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is for those who build packages: the pages say what --help says.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages of all commands",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			for _, name := range []string{"host", "workers"} { // what is true of the machine that builds is not of others
				eachCommand(root, func(c *cobra.Command) {
					if f := c.Flags().Lookup(name); f != nil {
						f.DefValue = ""
					}
				})
			}
			root.DisableAutoGenTag = true
			// The date is that of SOURCE_DATE_EPOCH, if it is set.
			return doc.GenManTree(root, &doc.GenManHeader{Title: "VIADUCT", Section: "1", Source: "Viaduct " + Version(), Manual: "Viaduct"}, args[0])
		},
	}
}
