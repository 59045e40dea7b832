// Package local reads what a daemon must know before it can reach the store, from files and the environment:
//
//	/etc/viaduct/viaduct.yaml, /etc/viaduct/conf.d/*.yaml    agent: {etcd: [http://192.0.2.1:2379]}
//	VIADUCT_AGENT_ETCD=http://192.0.2.1:2379                 the environment
//	--etcd http://192.0.2.1:2379                             flags, of which package ctl knows
//
// What comes later goes before; files of conf.d are read in the order of their names. A list goes as a whole.
package local

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/viaduct-net/viaduct/internal/api/ref"
)

// DefaultFile is where a daemon looks. Beside it is conf.d.
const DefaultFile = "/etc/viaduct/viaduct.yaml"

// File is the setting that says where the file is, which a file cannot say.
const File = "config"

// Sections of a file are the daemons; a file may be shared by both.
var Sections = []string{"agent", "server"}

// Value is what a file or the environment says.
type Value struct {
	Text string // of a list: its items with commas between
	From string // file:line:column, or the variable
}

// Read gives a daemon's settings by name. known are the names that there are: another one is an error that names
// where it stands and what may have been meant. The file need not exist, unless required.
func Read(file string, required bool, section string, known []string, environ []string) (map[string]Value, error) {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(file), "conf.d", "*.yaml"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]Value)
	var errs []error
	for i, name := range append([]string{file}, files...) {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && (i > 0 || !required) {
			continue
		}
		if err == nil {
			err = readFile(all, name, text, section, known)
		}
		errs = append(errs, err)
	}
	errs = append(errs, readEnviron(all, environ, section, known))
	return all, errors.Join(errs...)
}

// Variable is that of the environment for a setting.
func Variable(section, name string) string { return "VIADUCT_" + strings.ToUpper(section+"_"+name) }

func readEnviron(all map[string]Value, environ []string, section string, known []string) error {
	names := make(map[string]string, len(known))
	for _, k := range known {
		names[Variable(section, k)] = k
	}
	var errs []error
	for _, kv := range environ {
		v, text, _ := strings.Cut(kv, "=")
		if name, ok := names[v]; ok {
			all[name] = Value{text, v}
		} else if strings.HasPrefix(v, Variable(section, "")) && v != Variable(section, File) {
			errs = append(errs, fmt.Errorf("environment: %w", unknown("variable", v, slices.Collect(maps.Keys(names)))))
		}
	}
	return errors.Join(errs...)
}

func unknown(what, name string, known []string) error {
	if near := ref.Nearest(name, slices.Clone(known)); near != "" {
		return fmt.Errorf("no %s %q, did you mean %q?", what, name, near)
	}
	return fmt.Errorf("no %s %q: there are %s", what, name, strings.Join(slices.Sorted(slices.Values(known)), ", "))
}

// readFile adds what a file says of the section.
func readFile(all map[string]Value, name string, text []byte, section string, known []string) error {
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) {
			return fmt.Errorf("%s: %s", position(name, y.GetToken()), y.GetMessage())
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var errs []error
	fail := func(n ast.Node, err error) {
		errs = append(errs, fmt.Errorf("%s: %w", position(name, n.GetToken()), err))
	}
	for _, d := range f.Docs {
		sections, ok := pairs(d.Body)
		if !ok {
			fail(d.Body, errors.New("want sections: agent, server"))
			continue
		}
		for _, s := range sections {
			at := s.Key.GetToken().Value
			if !slices.Contains(Sections, at) {
				fail(s.Key, unknown("section", at, Sections))
				continue
			}
			settings, ok := pairs(s.Value)
			if !ok {
				fail(s.Value, fmt.Errorf("%s: want settings", at))
				continue
			}
			if at != section {
				continue
			}
			for _, kv := range settings {
				key := kv.Key.GetToken().Value
				value, ok := scalars(kv.Value)
				switch {
				case !slices.Contains(known, key):
					fail(kv.Key, fmt.Errorf("%s: %w", section, unknown("setting", key, known)))
				case !ok:
					fail(kv.Value, fmt.Errorf("%s.%s: want a text, a number or a list of them", section, key))
				default:
					all[key] = Value{value, position(name, kv.Key.GetToken())}
				}
			}
		}
	}
	return errors.Join(errs...)
}

// pairs are the entries of a mapping; of nothing, none.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil, true
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// scalars is the text of a scalar, or of a list of them.
func scalars(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.SequenceNode:
		var items []string
		for _, v := range n.Values {
			s, ok := scalars(v)
			if _, nested := v.(*ast.SequenceNode); nested || !ok {
				return "", false
			}
			items = append(items, s)
		}
		return strings.Join(items, ","), true
	}
	return "", false
}

func position(file string, t *token.Token) string {
	if t == nil || t.Position == nil {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, t.Position.Line, t.Position.Column)
}
