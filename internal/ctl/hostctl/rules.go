package hostctl

import (
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
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
	socket, output := socketFlag(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		chain := ""
		if len(args) > 0 {
			chain = args[0]
		}
		rs, err := debug.NewClient(*socket).Rules(c.Context(), chain)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(c.OutOrStdout(), rs)
		}
		head := []any{"CHAIN", "POSITION", "NAME", "MATCH", "ACTION", "HITS", "PACKETS", "BYTES"}
		if *output == "wide" {
			head = append(head, "ID")
		}
		t := newTable(c.OutOrStdout(), head...)
		for _, r := range rs {
			row := []any{r.Chain, r.Position, r.Name, r.Match, r.Action, r.Hits, r.Packets, r.Bytes}
			if *output == "wide" {
				row = append(row, r.ID)
			}
			t.AppendRow(row)
		}
		t.Render()
		return nil
	}
	return c
}
