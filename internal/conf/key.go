package conf

import (
	"fmt"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Find is the key of a name. Its error is an *UnknownKeyError.
func Find(name string) (*Key, error) {
	keys := Schema()
	names := make([]string, len(keys))
	for i := range keys {
		if keys[i].Name == name {
			return &keys[i], nil
		}
		names[i] = keys[i].Name
	}
	return nil, &UnknownKeyError{Name: name, Nearest: ref.Nearest(name, names), Absent: Absent(name)}
}

// Canonical is the form in which a value of the key is kept. Its error is a *ValueError.
func (k *Key) Canonical(text string) (string, error) {
	if err := k.set(text); err != nil {
		return "", err
	}
	return k.value.String(), nil
}

// Plain is a value, in canonical form, for JSON: a number for an integer, else text.
func (k *Key) Plain(text string) any {
	if k.set(text) != nil {
		return text
	}
	return k.value.plain()
}

func (k *Key) set(text string) error {
	if err := k.value.set(text); err != nil {
		return &ValueError{Key: k.Name, Text: text, Reason: err.Error()}
	}
	return nil
}

// UnknownKeyError says that there is no key of a name. It wraps store.ErrNotFound.
type UnknownKeyError struct {
	Name    string
	Nearest string // one that may have been meant; may be empty
	Absent  string // why a key that MidoNet has does not exist; may be empty
}

func (e *UnknownKeyError) Error() string {
	s := fmt.Sprintf("no key %q", e.Name)
	switch {
	case e.Absent != "":
		s += ": " + e.Absent
	case e.Nearest != "":
		s += fmt.Sprintf(", did you mean %q?", e.Nearest)
	}
	return s
}

// Unwrap gives store.ErrNotFound.
func (e *UnknownKeyError) Unwrap() error { return store.ErrNotFound }

// ValueError says that a key does not take a value. It wraps store.ErrInvalid.
type ValueError struct {
	Key, Text string
	Reason    string
}

func (e *ValueError) Error() string { return fmt.Sprintf("%s: value %q: %s", e.Key, e.Text, e.Reason) }

// Unwrap gives store.ErrInvalid.
func (e *ValueError) Unwrap() error { return store.ErrInvalid }
