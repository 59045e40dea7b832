package hostctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened on this host, as its agent saw it",
		Long: "Ports that became active or inactive, the store lost and found again, bounds that were reached, packets refused for want of credit, restarts. " +
			"The agent remembers the last 1024; who reads too slowly is told how many are missing.",
		Example: "  viaduct events\n  viaduct events --follow\n  viaduct events --follow -o json",
		Args:    cobra.NoArgs,
	}
	socket := socketFlag(c)
	form := output.StreamFlag(c, output.Text)
	follow := c.Flags().BoolP("follow", "f", false, "go on until interrupted")
	c.RunE = func(c *cobra.Command, _ []string) error {
		w := c.OutOrStdout()
		err := debug.NewClient(*socket).Events(c.Context(), *follow, func(ev debug.Event) error {
			if form.Machine() {
				return form.Next(w, ev)
			}
			subject := ev.Subject
			if subject != "" {
				subject += ": "
			}
			_, err := fmt.Fprintf(w, "%s  %-15s %s%s\n", ev.Time.Local().Format(time.DateTime), ev.Kind, subject, ev.Text)
			return err
		})
		if c.Context().Err() != nil {
			return nil // interrupted, as is proper
		}
		return err
	}
	return c
}
