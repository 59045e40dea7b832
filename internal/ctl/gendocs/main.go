// Command gendocs writes what is said about the configuration, from its schema: docs/conf.md, and manual pages in docs/man.
package main

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/conf/local"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/packaging/profiles"
)

//go:embed *.tmpl
var templates embed.FS

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendocs DOCS-DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	d, err := read()
	if err != nil {
		return err
	}
	for name, to := range map[string]string{
		"conf.md.tmpl": "conf.md", "viaduct-conf.5.tmpl": "man/viaduct-conf.5", "viaduct.yaml.5.tmpl": "man/viaduct.yaml.5",
	} {
		t, err := template.New(name).Funcs(template.FuncMap{"join": strings.Join}).ParseFS(templates, name)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, d); err != nil {
			return err
		}
		text := b.Bytes()
		if strings.HasPrefix(to, "man/") {
			text = md2man.Render(text)
		}
		if err := os.WriteFile(filepath.Join(dir, to), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// data is what the templates show.
type data struct {
	Sections []section
	Daemons  []daemon
	Absences []conf.Absence
	Profiles []string
	Rows     []row
}

type section struct {
	Name string
	Keys []conf.Key
}

type daemon struct {
	Name     string
	Settings []setting
}

type setting struct{ Name, Variable, Default, Text string }

// row is a key in all profiles.
type row struct {
	Key    string
	Values []string
}

func read() (*data, error) {
	d := &data{Absences: conf.Absences()}
	for _, k := range conf.Schema() {
		name := strings.SplitN(k.Name, ".", 3)[1]
		i := slices.IndexFunc(d.Sections, func(s section) bool { return s.Name == name })
		if i < 0 {
			i = len(d.Sections)
			d.Sections = append(d.Sections, section{Name: name})
		}
		d.Sections[i].Keys = append(d.Sections[i].Keys, k)
	}
	root := ctl.New()
	for _, name := range local.Sections {
		cmd, _, err := root.Find([]string{name})
		if err != nil {
			return nil, err
		}
		d.Daemons = append(d.Daemons, daemon{name, settings(cmd)})
	}
	return d, d.readProfiles()
}

func settings(cmd *cobra.Command) (ss []setting) {
	for _, f := range ctl.LocalSettings(cmd) {
		name := ctl.SettingName(f)
		def := strings.Trim(f.DefValue, "[]")
		if def == "false" {
			def = ""
		}
		ss = append(ss, setting{name, local.Variable(cmd.Name(), name), def, f.Usage})
	}
	return ss
}

func (d *data) readProfiles() error {
	files, err := fs.Glob(profiles.Files, "*.yaml")
	if err != nil {
		return err
	}
	// The one that all have comes first.
	slices.SortFunc(files, func(a, b string) int {
		first := func(s string) int {
			if s == conf.DefaultTemplate+".yaml" {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a, b))
	})
	for _, name := range files {
		f, err := profiles.Files.Open(name)
		if err != nil {
			return err
		}
		docs, err := conf.ReadFile(f, name)
		f.Close()
		if err != nil {
			return err
		}
		for _, doc := range docs {
			d.add(doc)
		}
	}
	return nil
}

// add puts a profile's values into its column.
func (d *data) add(doc conf.FileChange) {
	d.Profiles = append(d.Profiles, doc.Template)
	column := len(d.Profiles) - 1
	for _, k := range conf.Schema() {
		v, ok := doc.Values[k.Name]
		if !ok {
			continue
		}
		i := slices.IndexFunc(d.Rows, func(r row) bool { return r.Key == k.Name })
		if i < 0 {
			i = len(d.Rows)
			d.Rows = append(d.Rows, row{Key: k.Name})
		}
		for len(d.Rows[i].Values) < column {
			d.Rows[i].Values = append(d.Rows[i].Values, "")
		}
		d.Rows[i].Values = append(d.Rows[i].Values, v)
	}
}
