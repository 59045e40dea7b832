package native

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// place says where in the request body the objects of a transaction are, so that an
// error can point at a field.
type place struct {
	body bool
	path string // of an object that did not convert, or of the only one
	at   map[model.Key]string
}

// nowhere is for requests without a body.
var nowhere = place{}

func body(path string) place { return place{body: true, path: path} }

func (p place) of(o model.Object) place {
	p.at = map[model.Key]string{model.KeyOf(o): p.path}
	return p
}

// join is the location of a field, in the notation of RFC 9457's examples and huma.
func join(path, field string) string {
	s := "body"
	if path != "" {
		s += "." + path
	}
	if field != "" {
		s += "." + field
	}
	return s
}

// class is how one of the store's errors shows on the wire.
type class struct {
	err    error
	status int
	uri    string
	fix    string
}

// classes are tried in order.
var classes = []class{
	{model.ErrDenied, http.StatusForbidden, wire.ProblemDenied, "\"viaduct whoami\" tells who you are to the server; ask an operator"},
	{store.ErrNotFound, http.StatusNotFound, wire.ProblemNotFound, "check the id; list the kind to see what there is"},
	{store.ErrConflict, http.StatusConflict, wire.ProblemConflict, "read the object again and repeat the change on its new state"},
	{store.ErrExists, http.StatusConflict, wire.ProblemExists, "choose another name or id, or replace the object that exists"},
	{store.ErrReferenced, http.StatusConflict, wire.ProblemReferenced, "delete what refers to it first, or in the same transaction"},
	{store.ErrInvalid, http.StatusUnprocessableEntity, wire.ProblemInvalid, "correct the field that errors[] names"},
	{store.ErrUnavailable, http.StatusServiceUnavailable, wire.ProblemUnavailable, "try again; see /readyz?verbose"},
}

// problemBody is RFC 9457's problem with what to do about it.
type problemBody struct {
	huma.ErrorModel
	Fix    string        `json:"fix,omitempty" doc:"What to do about it."`
	Object *wire.Subject `json:"object,omitempty" doc:"The object that it concerns."`
}

// problem turns an error of the store, or of a conversion, into what the client sees.
func problem(err error, at place) *problemBody {
	var fields wire.FieldErrors
	if errors.As(err, &fields) {
		p := invalid("", "")
		p.Detail, p.Errors = fields.Error(), nil
		for _, f := range fields {
			p.Errors = append(p.Errors, &huma.ErrorDetail{
				Location: join(at.path, f.Path), Message: fmt.Sprintf("%q %s", f.Value, f.Message), Value: f.Value,
			})
		}
		return p
	}
	p := &problemBody{ErrorModel: huma.ErrorModel{Status: http.StatusInternalServerError, Detail: err.Error()}}
	for _, c := range classes {
		if errors.Is(err, c.err) {
			p.Type, p.Status, p.Fix = c.uri, c.status, c.fix
			break
		}
	}
	p.Title = http.StatusText(p.Status)
	p.concern(err, at)
	return p
}

// concern fills in which object and field it is about.
func (p *problemBody) concern(err error, at place) {
	var field *model.FieldError
	var referenced *model.ReferenceError
	var object *model.ObjectError
	switch {
	case errors.As(err, &field):
		p.Object = subject(model.Ref{Kind: field.Kind, ID: field.ID, Name: field.Name})
		p.Object.Field = field.Field
		d := &huma.ErrorDetail{Message: field.Reason}
		if path, ok := at.at[model.Key{Kind: field.Kind, ID: field.ID}]; ok && at.body {
			d.Location = join(path, wire.FieldName(field.Kind, field.Field))
		}
		p.Errors = append(p.Errors, d)
	case errors.As(err, &referenced):
		p.Object = subject(referenced.Ref)
	case errors.As(err, &object):
		p.Object = subject(object.Ref)
	}
}

func subject(r model.Ref) *wire.Subject {
	return &wire.Subject{Kind: r.Kind, ID: r.ID.String(), Name: r.Name}
}

func invalid(location, message string) *problemBody {
	return &problemBody{
		ErrorModel: huma.ErrorModel{
			Type: wire.ProblemInvalid, Status: http.StatusUnprocessableEntity,
			Title: http.StatusText(http.StatusUnprocessableEntity), Detail: message,
			Errors: []*huma.ErrorDetail{{Location: location, Message: message}},
		},
		Fix: "correct the field that errors[] names",
	}
}

// precondition makes a conflict with If-Match a 412 (RFC 9110 section 13.1.1).
func precondition(p *problemBody, ifRevision int64) *problemBody {
	if p.Type == wire.ProblemConflict && ifRevision != 0 {
		p.Status = http.StatusPreconditionFailed
		p.Title = http.StatusText(p.Status)
	}
	return p
}

// problemResponses documents what may go wrong.
func problemResponses(api huma.API, codes ...int) map[string]*huma.Response {
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problemBody](), true, "Problem")
	r := make(map[string]*huma.Response)
	add := func(code, text string) {
		r[code] = &huma.Response{Description: text, Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}}}
	}
	for _, c := range codes {
		add(strconv.Itoa(c), http.StatusText(c))
	}
	add("default", "Any other error")
	return r
}
