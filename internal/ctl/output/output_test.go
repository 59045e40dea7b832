package output

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

type sample struct {
	Match   string            `json:"match"`
	Packets uint64            `json:"packets"`
	Drops   map[string]uint64 `json:"drops,omitempty"`
	Share   float64           `json:"share"`
	Names   []string          `json:"names"`
	Hidden  string            `json:"-"`
}

var samples = []sample{
	{Match: "10.0.0.1 -> 10.0.0.2 <&>", Packets: 1<<64 - 1, Drops: map[string]uint64{"no_route": 3}, Share: 0.25, Names: []string{"a: b", "# c", "", "- d", "1", "null", "~"}},
	{Match: "two\nlines \"quoted\" \\ ü \u2028", Names: []string{"0x10", "on", "{", "'"}, Hidden: "x"},
	{},
}

// TestYAMLHasTheFieldsOfJSON: the same, whichever form a program reads.
func TestYAMLHasTheFieldsOfJSON(t *testing.T) {
	for _, s := range samples {
		var j, y strings.Builder
		if err := errors.Join(JSON.Print(&j, s), YAML.Print(&y, s)); err != nil {
			t.Fatal(err)
		}
		back, err := yaml.YAMLToJSON([]byte(y.String()))
		if err != nil {
			t.Fatalf("%v:\n%s", err, y.String())
		}
		var fromJSON, fromYAML any
		if err := errors.Join(decode(j.String(), &fromJSON), decode(string(back), &fromYAML)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fromJSON, fromYAML) {
			t.Errorf("JSON:\n%s\nYAML:\n%s", j.String(), y.String())
		}
	}
}

func decode(text string, v any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

func TestStreams(t *testing.T) {
	var j, y strings.Builder
	for _, s := range samples {
		if err := errors.Join(JSON.Next(&j, s), YAML.Next(&y, s)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(j.String(), "\n"); n != len(samples) {
		t.Errorf("%d lines for %d objects:\n%s", n, len(samples), j.String())
	}
	d, n := yaml.NewDecoder(strings.NewReader(y.String())), 0
	for {
		var s map[string]any
		err := d.Decode(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s["match"] != samples[n].Match {
			t.Errorf("document %d: %q", n, s["match"])
		}
		n++
	}
	if n != len(samples) {
		t.Errorf("%d documents for %d objects:\n%s", n, len(samples), y.String())
	}
}

func TestFlag(t *testing.T) {
	for form, ok := range map[string]bool{"": true, "table": true, "wide": true, "json": true, "yaml": true, "name": false, "xml": false} {
		ran := ""
		c := &cobra.Command{Use: "x", SilenceErrors: true, SilenceUsage: true}
		f := Flag(c, Table, Wide)
		c.RunE = func(*cobra.Command, []string) error { ran = string(*f); return nil }
		c.SetArgs(nil)
		want := "table"
		if form != "" {
			want = form
			c.SetArgs([]string{"-o", form})
		}
		err := c.Execute()
		switch {
		case ok && (err != nil || ran != want):
			t.Errorf("-o %s: %v, ran with %q", form, err, ran)
		case !ok && (ran != "" || exit.Of(err) != exit.Usage || !strings.Contains(err.Error(), "want table, wide, json or yaml")):
			t.Errorf("-o %s: %v, ran with %q", form, err, ran)
		}
	}
}
