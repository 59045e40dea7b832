package hostctl

import (
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func rulesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "rules [CHAIN|SECURITY-GROUP]",
		Example: "  viaduct rules\n" +
			"  viaduct rules web",
		Short: "Show the rules of filter chains and security groups, and how often they were met on this host",
		Long:  "HITS counts packets that were simulated and fitted the rule, or answer what fits it: about one for each new flow. PACKETS and BYTES are of all that fitted, the packets that the kernel switched too, as it reports them: some seconds late.",
		Args:  cobra.MaximumNArgs(1),
	}
	socket, form := socketFlag(c), output.Flag(c, output.Table, output.Wide)
	c.RunE = func(c *cobra.Command, args []string) error {
		chain := ""
		if len(args) > 0 {
			chain = args[0]
		}
		rs, err := debug.NewClient(*socket).Rules(c.Context(), chain)
		if err != nil {
			return err
		}
		if form.Machine() {
			return form.Print(c.OutOrStdout(), rs)
		}
		head := []any{"CHAIN", "POSITION", "NAME", "MATCH", "ACTION", "HITS", "PACKETS", "BYTES"}
		if *form == output.Wide {
			head = append(head, "ID")
		}
		t := newTable(c.OutOrStdout(), head...)
		for _, r := range rs {
			row := []any{r.Chain, r.Position, r.Name, r.Match, r.Action, r.Hits, r.Packets, r.Bytes}
			if *form == output.Wide {
				row = append(row, r.ID)
			}
			t.AppendRow(row)
		}
		t.Render()
		return nil
	}
	return c
}
