// Package exit says which exit code a failed command ends with.
package exit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Code is a process's exit code.
type Code int

// Codes.
const (
	OK          Code = 0
	Failure     Code = 1
	Usage       Code = 2
	NotFound    Code = 3
	Conflict    Code = 4
	Denied      Code = 5
	Unreachable Code = 6
	Timeout     Code = 7
)

// Error gives an error a code other than the one that follows from what it wraps.
type Error struct {
	Code Code
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the error.
func (e *Error) Unwrap() error { return e.Err }

// With wraps err, which is not nil, so that the command ends with code.
func With(code Code, err error) error { return &Error{code, err} }

// Usagef is an error in how a command was called.
func Usagef(format string, args ...any) error { return With(Usage, fmt.Errorf(format, args...)) }

// Of is the code for err; OK for nil.
func Of(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, os.ErrPermission), errors.Is(err, model.ErrDenied):
		return Denied
	case errors.Is(err, store.ErrUnavailable):
		return Unreachable
	case errors.Is(err, store.ErrNotFound):
		return NotFound
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists), errors.Is(err, store.ErrReferenced):
		return Conflict
	}
	return Failure
}
