// Package output is the -o of all commands that show something: its flag, and the forms that programs read.
package output

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

// Form is what -o asks for.
type Form string

// Forms that people read differ from command to command; these are the same everywhere.
const (
	Table Form = "table"
	Wide  Form = "wide"
	Text  Form = "text"
	JSON  Form = "json"
	YAML  Form = "yaml"
	Name  Form = "name"
)

// Flag gives a command -o with these forms, json and yaml; the first is the default. Another one is refused before the command runs.
func Flag(c *cobra.Command, forms ...Form) *Form {
	return flag(c, "", forms)
}

// StreamFlag is Flag for a command that shows one thing after the other, by Next.
func StreamFlag(c *cobra.Command, forms ...Form) *Form {
	return flag(c, ": json is one object a line, yaml one document each", forms)
}

func flag(c *cobra.Command, note string, forms []Form) *Form {
	var words []string
	for _, f := range slices.Concat(forms, []Form{JSON, YAML}) {
		words = append(words, string(f))
	}
	last := len(words) - 1
	want := strings.Join(words[:last], ", ") + " or " + words[last]
	f := new(Form)
	c.Flags().StringVarP((*string)(f), "output", "o", words[0], want+note)
	c.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(words, string(*f)) {
			return exit.Usagef("-o %q: want %s", *f, want)
		}
		return nil
	}
	return f
}

// Machine says whether Print and Next are to be used: the form is one that programs read.
func (f Form) Machine() bool { return f == JSON || f == YAML }

// Print writes v, all that the command shows. YAML has the fields of the JSON.
func (f Form) Print(w io.Writer, v any) error {
	b, err := f.encode(v, "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Next writes v, one of several: a line of JSON, or a YAML document.
func (f Form) Next(w io.Writer, v any) error {
	b, err := f.encode(v, "")
	if err != nil {
		return err
	}
	if f == YAML {
		b = append([]byte("---\n"), b...)
	}
	_, err = w.Write(b) // at once: who reads a stream sees whole objects
	return err
}

func (f Form) encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil || f == JSON {
		return b.Bytes(), err
	}
	return yaml.JSONToYAML(b.Bytes())
}
