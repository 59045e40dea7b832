package model

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// What a change can be refused for. The typed errors below wrap these.
var (
	ErrNotFound   = errors.New("not found")
	ErrConflict   = errors.New("changed meanwhile") // an expected revision does not hold
	ErrExists     = errors.New("already exists")    // id, or name within the kind
	ErrInvalid    = errors.New("invalid")           // a rule is broken; the text names the field
	ErrReferenced = errors.New("still referred to") // deletion would leave a dangling reference
	ErrDenied     = errors.New("not permitted")     // it exists and may be seen, but not so be used
)

// Ref names an object in a way that people recognize.
type Ref struct {
	Kind Kind
	ID   uuid.UUID
	Name string // may be empty
}

// RefTo names o.
func RefTo(o Object) Ref {
	m := o.GetMeta()
	return Ref{Kind: o.Kind(), ID: m.ID, Name: m.Name}
}

// String is the kind and the name, or the id of what has no name.
func (r Ref) String() string {
	if r.Name != "" {
		return string(r.Kind) + " " + r.Name
	}
	return string(r.Kind) + " " + r.ID.String()
}

// FieldError says which field of which object breaks a rule. It wraps ErrInvalid.
type FieldError struct {
	Kind   Kind
	ID     uuid.UUID
	Name   string
	Field  string // as in the API: lower case with underscores, an index in brackets
	Reason string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: %s: %s", Ref{e.Kind, e.ID, e.Name}, e.Field, e.Reason)
}

// Unwrap makes it an ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// ReferenceError says which objects keep another one from being deleted. It wraps ErrReferenced.
type ReferenceError struct {
	Ref
	By     []Ref // ordered by kind, name and id
	Others int   // that the asking tenant may not know of
}

func (e *ReferenceError) Error() string {
	const most = 5
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s by ", e.Ref, ErrReferenced)
	for i, r := range e.By {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(e.By)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.String())
	}
	if e.Others > 0 {
		if len(e.By) > 0 {
			b.WriteString(", and ")
		}
		fmt.Fprintf(&b, "%d objects of others", e.Others)
	}
	return b.String()
}

// Unwrap makes it an ErrReferenced.
func (e *ReferenceError) Unwrap() error { return ErrReferenced }

// ObjectError concerns an object as a whole: Err is ErrNotFound, ErrConflict or ErrExists.
type ObjectError struct {
	Ref
	Err    error
	Detail string // may be empty
}

func (e *ObjectError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%s: %s", e.Ref, e.Err)
	}
	return fmt.Sprintf("%s: %s: %s", e.Ref, e.Err, e.Detail)
}

// Unwrap gives Err.
func (e *ObjectError) Unwrap() error { return e.Err }
