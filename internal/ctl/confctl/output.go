package confctl

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// show prints v for programs, or else the rows.
func show(c *cobra.Command, form output.Form, v any, rows [][]string) error {
	w := c.OutOrStdout()
	if form.Machine() {
		return form.Print(w, v)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// text is a value as people write it.
func text(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
