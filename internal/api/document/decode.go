package document

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/viaduct-net/viaduct/internal/api/ref"
)

// decode reads a mapping, but for its kind, into the struct that v points to. It returns
// where each field was. The library's own decoder stops at the first error and loses the path.
func (r *reader) decode(n ast.Node, v any, label string) (map[string]Pos, Errors) {
	_, network := v.(Value)
	d := &decoder{reader: r, owner: network, label: label, fields: make(map[string]Pos)}
	if m, ok := n.(*ast.MappingNode); ok {
		for _, kv := range m.Values {
			if key, _ := r.scalar(kv.Key); key == "name" {
				name, _ := r.scalar(kv.Value)
				d.label = strings.TrimSpace(label + " " + name)
			}
		}
	}
	d.value(n, reflect.ValueOf(v).Elem(), "")
	return d.fields, d.errs
}

type decoder struct {
	*reader
	owner  bool // tenant and shared are read elsewhere
	label  string
	fields map[string]Pos
	errs   Errors
}

func (d *decoder) fail(n ast.Node, path string, err error) {
	full := d.label
	if path != "" {
		full += ": " + path
	}
	d.errs = append(d.errs, &Error{Pos: d.pos(n), Path: full, Err: err})
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	at := n
	if path != "" {
		d.fields[path] = d.pos(at)
	}
	n = d.resolve(n)
	if n == nil {
		d.fail(at, path, errors.New("refers to no anchor"))
		return
	}
	if n.Type() == ast.NullType {
		return // as if absent, except in fields
	}
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		p := reflect.New(t.Elem())
		d.value(n, p.Elem(), path)
		v.Set(p)
	case reflect.PointerTo(t).Implements(textUnmarshaler) || t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Map:
		s, ok := d.scalar(n)
		if !ok {
			d.fail(n, path, fmt.Errorf("wants %s, this is a %s", wanted(t), typeName(n)))
			return
		}
		if err := setScalar(v, s); err != nil {
			d.fail(n, path, err)
		}
	case t.Kind() == reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.fail(n, path, fmt.Errorf("wants a list, this is a %s: put it in brackets", typeName(n)))
			return
		}
		v.Set(reflect.MakeSlice(t, len(seq.Values), len(seq.Values)))
		for i, item := range seq.Values {
			d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		d.mapping(n, v, path)
	}
}

// owner is what every document about the virtual network may say beside the fields of its kind.
type owner struct {
	Tenant string
	Shared *bool // nil: as it is
}

func (r *reader) owner(m *ast.MappingNode, label string) (o owner, errs Errors) {
	for _, kv := range m.Values {
		key, _ := r.scalar(kv.Key)
		text, ok := r.scalar(kv.Value)
		if key != "tenant" && key != "shared" || r.resolve(kv.Value).Type() == ast.NullType {
			continue
		}
		err := fmt.Errorf("wants a text, this is a %s", typeName(kv.Value))
		switch {
		case ok && key == "tenant":
			o.Tenant, err = text, nil
		case ok:
			o.Shared = new(bool)
			err = setScalar(reflect.ValueOf(o.Shared).Elem(), text)
		}
		if err != nil {
			errs = append(errs, &Error{Pos: r.pos(kv.Value), Path: label + ": " + key, Err: err})
		}
	}
	return o, errs
}

// mapping reads into a struct or into a map with string keys.
func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.fail(n, path, fmt.Errorf("wants a mapping, this is a %s", typeName(n)))
		return
	}
	isMap := v.Kind() == reflect.Map
	var fields map[string]field
	if isMap {
		v.Set(reflect.MakeMap(v.Type()))
	} else {
		fields = structFields(v.Type(), nil)
	}
	for _, kv := range m.Values {
		key, ok := d.scalar(kv.Key)
		if !ok || kv.Key.Type() == ast.MergeKeyType {
			d.fail(kv.Key, path, errors.New("only plain keys are understood"))
			continue
		}
		if path == "" && (key == "kind" || d.owner && (key == "tenant" || key == "shared")) {
			continue
		}
		sub := strings.TrimPrefix(path+"."+key, ".")
		if isMap {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(kv.Value, item, sub)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
			continue
		}
		f, ok := fields[key]
		if !ok {
			d.fail(kv.Key, sub, unknownField(fields, key))
			continue
		}
		d.value(kv.Value, v.FieldByIndex(f.index), sub)
	}
	for _, name := range sortedNames(fields) {
		sub := strings.TrimPrefix(path+"."+name, ".")
		if _, ok := d.fields[sub]; !ok && fields[name].required {
			d.fail(n, sub, errors.New("is missing"))
		}
	}
}

func unknownField(fields map[string]field, key string) error {
	names := sortedNames(fields)
	if near := ref.Nearest(key, slices.Clone(names)); near != "" {
		return fmt.Errorf("unknown field, did you mean %q?", near)
	}
	return fmt.Errorf("unknown field: there are %s", strings.Join(names, ", "))
}

type field struct {
	index    []int
	required bool
}

// structFields lists the fields by their yaml names; embedded structs are flattened.
func structFields(t reflect.Type, at []int) map[string]field {
	fields := make(map[string]field)
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(slices.Clone(at), i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct && name == "":
			for n, sub := range structFields(f.Type, index) {
				fields[n] = sub
			}
		case f.IsExported() && name != "" && name != "-":
			fields[name] = field{index, options == "required"}
		}
	}
	return fields
}

func sortedNames(fields map[string]field) []string {
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String, reflect.Struct, reflect.Array, reflect.Slice:
		return "a text"
	}
	return "a number"
}

func setScalar(v reflect.Value, s string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	bad := fmt.Errorf("%q is not %s", s, wanted(v.Type()))
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil || len(s) == 1 {
			return bad
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if v.Type() == reflect.TypeFor[time.Duration]() {
			dur, err := time.ParseDuration(s)
			if err != nil {
				return fmt.Errorf("%q is not a duration such as 1m30s", s)
			}
			v.SetInt(int64(dur))
			return nil
		}
		i, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		i, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetUint(i)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("cannot be read into %s", v.Type())
	}
	return nil
}
