package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// listing is what get shows.
type listing struct {
	index   *ref.Index
	objects []model.Object
	single  bool // one was asked for by name
	members memberStates
}

// printers are the forms of -o.
var printers = map[output.Form]func(io.Writer, listing) error{
	output.Table: func(w io.Writer, l listing) error { return printTables(w, l, false) },
	output.Wide:  func(w io.Writer, l listing) error { return printTables(w, l, true) },
	output.JSON:  printJSON,
	output.YAML:  printYAML,
	output.Name:  printNames,
}

func printNames(w io.Writer, l listing) error {
	for _, o := range l.objects {
		if _, err := fmt.Fprintf(w, "%s/%s\n", o.Kind(), l.index.Label(o.Kind(), o.GetMeta().ID)); err != nil {
			return err
		}
	}
	return nil
}

func printYAML(w io.Writer, l listing) error {
	for i, o := range l.objects {
		b, err := document.Render(o, l.index)
		if err != nil {
			return err
		}
		status, err := l.members.document(l.index, o.GetMeta().ID)
		if err != nil {
			return err
		}
		b = append(b, status...)
		if i > 0 {
			b = append([]byte("---\n"), b...)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(w io.Writer, l listing) error {
	items := make([]json.RawMessage, len(l.objects))
	for i, o := range l.objects {
		b, err := objectJSON(o)
		if err != nil {
			return err
		}
		if s := l.members[o.GetMeta().ID]; s != nil {
			status, err := json.Marshal(s)
			if err != nil {
				return err
			}
			b = append(append(append(bytes.TrimSuffix(b, []byte("}")), `,"status":`...), status...), '}')
		}
		items[i] = b
	}
	if l.single {
		return output.JSON.Print(w, items[0])
	}
	return output.JSON.Print(w, struct {
		Items []json.RawMessage `json:"items"`
	}{items})
}

// objectJSON is the API's form with the kind in front.
func objectJSON(o model.Object) (json.RawMessage, error) {
	b, err := json.Marshal(wire.FromModel(o))
	if err != nil {
		return nil, err
	}
	// An object always has an id, so there is a field after the brace.
	return append(fmt.Appendf(nil, "{\"kind\":%q,", o.Kind()), bytes.TrimPrefix(b, []byte("{"))...), nil
}
