package confctl

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

// output is the form that -o asks for.
type output struct{ form string }

// flag adds -o; more are forms besides table, json and yaml.
func (o *output) flag(c *cobra.Command, more ...string) {
	forms := append([]string{"table", "json", "yaml"}, more...)
	c.Flags().StringVarP(&o.form, "output", "o", "table", strings.Join(forms, ", "))
	c.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(forms, o.form) {
			return exit.Usagef("-o %q: want %s", o.form, strings.Join(forms, ", "))
		}
		return nil
	}
}

// print writes v as JSON or YAML, or else the rows.
func (o *output) print(c *cobra.Command, v any, rows [][]string) error {
	w := c.OutOrStdout()
	switch o.form {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		b, err := json.Marshal(v)
		if err == nil {
			b, err = yaml.JSONToYAML(b)
		}
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
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
