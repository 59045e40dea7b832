// Package document reads the virtual network as people write it, in YAML, and applies it.
//
// A file holds one document, several separated by ---, or lists of documents. Each has a
// kind and, so that applying it again finds the object, a name or an id:
//
//	kind: port
//	name: vm1
//	bridge: blue
//	mac: 02:00:00:00:00:01
//	addresses: [10.0.1.10]
//	binding: {host: h1, interface: veth-vm1}
package document

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// LabKinds are the kinds that belong to the laboratory: Parse hands them on undecoded.
var LabKinds = []string{"lab", "vm"}

// Pos is a place in a file. The zero Pos is nowhere.
type Pos struct {
	File         string
	Line, Column int // from 1
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error is what is wrong at one place of a file.
type Error struct {
	Pos
	Path string // of the field, such as "port vm1: addresses[0]"; may be empty
	Err  error  // the reason
}

func (e *Error) Error() string {
	var b strings.Builder
	for _, s := range []string{e.Pos.String(), e.Path} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	return b.String() + e.Err.Error()
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// Errors are all that is wrong, in the order of the files. Never empty.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single errors.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i := range e {
		list[i] = e[i]
	}
	return list
}

// orNil is e as an error, or nil when there are none.
func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// Doc is one document about the virtual network.
type Doc struct {
	Value  Value
	Pos    Pos
	owner  owner
	fields map[string]Pos // where each field that was given is
}

func (d *Doc) given(path string) bool { _, ok := d.fields[path]; return ok }

// label names the document in messages.
func (d *Doc) label() string {
	name, id := d.Value.identity()
	if name == "" {
		name = id
	}
	if b, ok := d.Value.(*Binding); ok && name == "" {
		name = b.Port
	}
	return strings.TrimSpace(string(d.Value.Kind()) + " " + name)
}

// fail makes an error about a field, at the nearest place that the file has.
func (d *Doc) fail(path string, err error) *Error {
	e := &Error{Pos: d.Pos, Path: d.label(), Err: err}
	if path != "" {
		e.Path += ": " + path
	}
	for p := path; p != ""; p = parent(p) {
		if pos, ok := d.fields[p]; ok {
			e.Pos = pos
			break
		}
	}
	return e
}

// parent is the path of what contains a field: "a.b[0]", "a.b", "a", "".
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// Other is a document whose kind is somebody else's.
type Other struct {
	Kind string
	Pos  Pos
	node ast.Node
	read *reader
}

// Decode reads the document, without its kind, into a struct by its `yaml` tags. It is
// strict: fields that the struct does not have are refused, and those tagged
// `yaml:"name,required"` must be there. Errors are Errors, with positions.
func (o *Other) Decode(v any) error {
	_, errs := o.read.decode(o.node, v, o.Kind)
	return errs.orNil()
}

// Set is the documents of one or several files.
type Set struct {
	Docs   []*Doc
	Others []*Other
}

// Add appends a document that was not read from a file; pos is for messages. Of a Port, a non-empty
// Peer and a non-nil Binding count as given.
func (s *Set) Add(v Value, pos Pos) {
	d := &Doc{Value: v, Pos: pos, fields: map[string]Pos{}}
	if p, ok := v.(*Port); ok {
		if p.Peer != "" {
			d.fields["peer"] = pos
		}
		if p.Binding != nil {
			d.fields["binding"] = pos
		}
	}
	s.Docs = append(s.Docs, d)
}

// Append takes over the documents of t.
func (s *Set) Append(t *Set) {
	s.Docs = append(s.Docs, t.Docs...)
	s.Others = append(s.Others, t.Others...)
}
