package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// forms are what -o may be asked for.
var forms = map[string]bool{"table": true, "wide": true, "json": true, "yaml": true, "name": true, "text": true, "value": true}

// TestEveryCommandExplainsItself: what it does in a line, an example that calls it, flags that exist, and -o alike everywhere.
func TestEveryCommandExplainsItself(t *testing.T) {
	n := 0
	walk(command(), func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Short[0] < 'A' || c.Short[0] > 'Z' {
			t.Errorf("%s: Short %q: want a line that begins with a capital and has no full stop", path, c.Short)
		}
		if c.RunE == nil {
			t.Errorf("%s does nothing: RunE", path)
		}
		if c.Parent() != nil && c.Args == nil && !takesArguments(c) {
			t.Errorf("%s takes arguments, but its Use %q has none", path, c.Use)
		}
		if c.Parent() != nil {
			checkExample(t, c)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", path, f.Name, f.Usage)
			}
			if f.Name != strings.ToLower(f.Name) || strings.Contains(f.Name, "_") {
				t.Errorf("%s --%s: flags are lower case, with hyphens", path, f.Name)
			}
			if (f.Shorthand == "o") != (f.Name == "output") {
				t.Errorf("%s --%s: -o is --output, and nothing else", path, f.Name)
			}
			if f.Name == "output" {
				checkOutput(t, c, f)
			}
			if f.Name == "json" || f.Name == "yaml" || f.Name == "format" {
				t.Errorf("%s --%s: forms are asked for by -o", path, f.Name)
			}
		})
	})
	if n < 20 {
		t.Errorf("only %d commands were seen", n)
	}
}

func takesArguments(c *cobra.Command) bool { return strings.Contains(c.Use, " ") }

// showing are commands that say what there is: programs read them too.
var showing = []string{
	"get", "watch", "version", "whoami", "trace", "flows", "ports", "rules", "top", "why", "events", "lab status", "lab list", "token list", "certs list",
	"conf get", "conf dump", "conf schema", "conf doc", "conf hosts", "conf template list", "conf template get",
}

func TestShowingCommandsHaveForms(t *testing.T) {
	for _, name := range showing {
		c, rest, err := command().Find(strings.Fields(name))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %v, left %q", name, err, rest)
		} else if c.Flags().Lookup("output") == nil {
			t.Errorf("%s has no -o", name)
		}
	}
}

// checkExample wants a line that calls the command or one below it, with flags that it has.
func checkExample(t *testing.T, c *cobra.Command) {
	called := false
	for line := range strings.Lines(c.Example) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "viaduct" {
			continue
		}
		line = strings.TrimSpace(line)
		called = called || strings.HasPrefix(line, c.CommandPath())
		target, rest, err := c.Root().Find(words[1:])
		if err != nil {
			t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
			continue
		}
		for _, w := range rest {
			if w == "|" || w == ">" || w == "--" {
				break
			}
			name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
			if strings.HasPrefix(w, "--") && target.Flags().Lookup(name) == nil && target.InheritedFlags().Lookup(name) == nil {
				t.Errorf("%s: example %q: no flag --%s", c.CommandPath(), line, name)
			}
		}
	}
	if !called {
		t.Errorf("%s: no example that calls it: %q", c.CommandPath(), c.Example)
	}
}

// checkOutput wants known forms in the flag's text, the default among them.
func checkOutput(t *testing.T, c *cobra.Command, f *pflag.Flag) {
	list, _, _ := strings.Cut(f.Usage, ":")
	seen := map[string]bool{}
	for _, w := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' }) {
		if w == "or" {
			continue
		}
		if seen[w] = true; !forms[w] {
			t.Errorf("%s -o: %q is no form that others have", c.CommandPath(), w)
		}
	}
	if !seen[f.DefValue] || !seen["json"] || !seen["yaml"] {
		t.Errorf("%s -o: %q does not name its default %q, json and yaml", c.CommandPath(), f.Usage, f.DefValue)
	}
	for form := range forms { // what is named is taken, and nothing else: before the command does anything
		if err := c.ParseFlags([]string{"-o", form}); err != nil {
			t.Fatal(err)
		}
		if err := c.PreRunE(c, nil); (err == nil) != seen[form] {
			t.Errorf("%s -o %s: %v, but its help says %q", c.CommandPath(), form, err, f.Usage)
		}
	}
}

// TestCompletion: scripts for the shells that people have.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out strings.Builder
		root := command()
		root.SetOut(&out)
		root.SetArgs([]string{"completion", shell})
		if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "viaduct") {
			t.Errorf("%s: %v, %d bytes", shell, err, out.Len())
		}
	}
}

func walk(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			walk(sub, fn)
		}
	}
}
