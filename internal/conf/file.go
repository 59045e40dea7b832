package conf

import (
	"errors"
	"fmt"
	"io"

	"github.com/viaduct-net/viaduct/internal/api/document"
)

// FileChange is a document of `kind: conf`: what happens to the layer of a template or of a host.
type FileChange struct {
	Pos      document.Pos      `yaml:"-"`
	Template string            `yaml:"template"` // one of these two
	Host     string            `yaml:"host"`     // name, id or unique beginning of an id
	Assign   *string           `yaml:"assign"`   // the host's template; "" none
	Clear    bool              `yaml:"clear"`    // first remove what the layer has
	Values   map[string]string `yaml:"values"`
}

// ReadFile reads documents of `kind: conf`; name is for messages. Values are not checked.
func ReadFile(r io.Reader, name string) ([]FileChange, error) {
	const kind = "conf"
	set, err := document.Parse(r, name, kind)
	if err != nil {
		return nil, err
	}
	var changes []FileChange
	var errs document.Errors
	fail := func(pos document.Pos, format string, args ...any) {
		errs = append(errs, &document.Error{Pos: pos, Path: kind, Err: fmt.Errorf(format, args...)})
	}
	for _, d := range set.Docs {
		fail(d.Pos, "%s belongs to the virtual network: use \"viaduct apply\"", d.Value.Kind())
	}
	for _, o := range set.Others {
		if o.Kind != kind {
			fail(o.Pos, "%q belongs to the laboratory: use \"viaduct lab\"", o.Kind)
			continue
		}
		c := FileChange{Pos: o.Pos}
		if err := o.Decode(&c); err != nil {
			var more document.Errors
			if !errors.As(err, &more) {
				return nil, err
			}
			errs = append(errs, more...)
			continue
		}
		if (c.Template == "") == (c.Host == "") {
			fail(o.Pos, "wants a template or a host, and not both")
		}
		if c.Template != "" && c.Assign != nil {
			fail(o.Pos, "templates are assigned to hosts")
		}
		changes = append(changes, c)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("%s: no documents of kind conf", name)
	}
	return changes, nil
}
