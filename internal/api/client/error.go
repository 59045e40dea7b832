package client

import (
	"net/http"
	"os"
	"strings"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Error is a problem+json answer (RFC 9457). It wraps the store's error that it stands for, if
// there is one a *model.FieldError, or os.ErrPermission.
type Error struct {
	Type   string        `json:"type"`
	Status int           `json:"status"`
	Detail string        `json:"detail"`
	Fix    string        `json:"fix"` // what to do about it; may be empty
	Object *wire.Subject `json:"object"`
	Fields []FieldError  `json:"errors"`
}

// FieldError is one of an Error's fields.
type FieldError struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// Error is the detail, which names the object, and the fields unless it names them already.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, f := range e.Fields {
		if strings.Contains(e.Detail, f.Message) {
			continue
		}
		b.WriteString("; ")
		if f.Location != "" {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}

// Unwrap gives the store's error.
func (e *Error) Unwrap() error {
	switch e.Type {
	case wire.ProblemNotFound:
		return store.ErrNotFound
	case wire.ProblemConflict:
		return store.ErrConflict
	case wire.ProblemExists:
		return store.ErrExists
	case wire.ProblemReferenced:
		return store.ErrReferenced
	case wire.ProblemInvalid:
		if e.Object == nil || len(e.Fields) != 1 {
			return store.ErrInvalid
		}
		id, err := wire.ParseID(e.Object.ID)
		if err != nil {
			return store.ErrInvalid
		}
		return &model.FieldError{Kind: e.Object.Kind, ID: id, Name: e.Object.Name, Field: e.Object.Field, Reason: e.Fields[0].Message}
	case wire.ProblemUnavailable:
		return store.ErrUnavailable
	}
	switch e.Status {
	case http.StatusForbidden, http.StatusUnauthorized:
		return os.ErrPermission
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return store.ErrInvalid
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return store.ErrUnavailable
	}
	return nil
}
