package document

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// maxFile bounds a file, in bytes: the parser holds some hundred times as much.
const maxFile = 16 << 20

// Parse reads a file; filename is for messages. Documents of LabKinds and of the kinds in
// other become Set.Others. Errors are Errors: all that is malformed, not only the first; syntax
// errors excepted, after which nothing else can be told.
func Parse(r io.Reader, filename string, other ...string) (*Set, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filename, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d MiB: split it", filename, maxFile>>20)
	}
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, Errors{syntaxError(filename, err)}
	}
	rd := &reader{file: filename, anchors: make(map[string]ast.Node), other: append(slices.Clone(LabKinds), other...)}
	for _, d := range f.Docs {
		rd.document(d.Body, false)
	}
	if err := rd.errs.orNil(); err != nil {
		return nil, err
	}
	return &rd.set, nil
}

func syntaxError(filename string, err error) *Error {
	e := &Error{Pos: Pos{File: filename}, Err: err}
	var y yaml.Error
	if errors.As(err, &y) {
		e.Err = errors.New(y.GetMessage())
		if t := y.GetToken(); t != nil {
			e.Pos = position(filename, t)
		}
	}
	return e
}

func position(filename string, t *token.Token) Pos {
	p := Pos{File: filename}
	if t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

// reader turns the nodes of one file into documents.
type reader struct {
	file    string
	anchors map[string]ast.Node
	other   []string
	set     Set
	errs    Errors
}

func (r *reader) pos(n ast.Node) Pos {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return position(r.file, m.Values[0].Key.GetToken()) // a mapping's own token is its first colon
	}
	return position(r.file, n.GetToken())
}

func (r *reader) fail(n ast.Node, path, format string, args ...any) {
	r.errs = append(r.errs, &Error{Pos: r.pos(n), Path: path, Err: fmt.Errorf(format, args...)})
}

// document reads a document or a list of them. A list in a list is refused: an alias could
// make it endless.
func (r *reader) document(n ast.Node, listed bool) {
	switch n := r.resolve(n).(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode: // nothing between two ---
	case *ast.SequenceNode:
		if listed {
			r.fail(n, "", "a list of documents may not hold lists")
			return
		}
		for _, item := range n.Values {
			r.document(item, true)
		}
	case *ast.MappingNode:
		r.mapping(n)
	default:
		r.fail(n, "", "a document is a mapping with a kind, or a list of such; this is a %s", typeName(n))
	}
}

func (r *reader) mapping(m *ast.MappingNode) {
	var kind string
	var at ast.Node
	for _, kv := range m.Values {
		if key, _ := r.scalar(kv.Key); key == "kind" {
			at = kv.Value
			kind, _ = r.scalar(kv.Value)
		}
	}
	if kind == "" {
		if at == nil {
			at = m
		}
		r.fail(at, "kind", "is missing: one of %s", strings.Join(kindNames(r.other), ", "))
		return
	}
	if slices.Contains(r.other, kind) {
		r.set.Others = append(r.set.Others, &Other{Kind: kind, Pos: r.pos(m), node: m, read: r})
		return
	}
	v := newValue(kind)
	if v == nil {
		names := kindNames(r.other)
		if near := ref.Nearest(kind, names); near != "" {
			r.fail(at, "kind", "no kind %q, did you mean %q?", kind, near)
		} else {
			r.fail(at, "kind", "no kind %q: there are %s", kind, strings.Join(names, ", "))
		}
		return
	}
	fields, errs := r.decode(m, v, kind)
	r.errs = append(r.errs, errs...)
	own, wrong := r.owner(m, kind)
	r.errs = append(r.errs, wrong...)
	d := &Doc{Value: v, Pos: r.pos(m), owner: own, fields: fields}
	if len(errs) == 0 {
		if name, id := v.identity(); name == "" && id == "" && v.Kind() != model.KindBinding {
			r.errs = append(r.errs, d.fail("name", errors.New("is missing: a name, or an id, is how applying it again finds the object")))
		}
	}
	r.set.Docs = append(r.set.Docs, d)
}

func kindNames(other []string) []string {
	names := slices.Clone(other)
	for _, k := range model.Kinds {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}
