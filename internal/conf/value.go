package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a place of one type, and what it accepts. Texts are what people write; String is the one form in which they are kept.
type value interface {
	set(text string) error // nothing is changed when it fails; the error says what is wanted
	String() string
	typeName() string
	limits() string // what it accepts, for people
	plain() any     // for JSON: a number for an integer, else text
}

type integer[T ~int | ~int64] struct {
	p        *T
	min, max T
}

func intIn[T ~int | ~int64](p *T, min, max T) value { return integer[T]{p, min, max} }

func (v integer[T]) set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("want an integer, %s", v.limits())
	}
	if n < int64(v.min) || n > int64(v.max) {
		return fmt.Errorf("is out of range: want %s", v.limits())
	}
	*v.p = T(n)
	return nil
}

func (v integer[T]) String() string   { return strconv.FormatInt(int64(*v.p), 10) }
func (v integer[T]) typeName() string { return "integer" }
func (v integer[T]) limits() string   { return fmt.Sprintf("%d to %d", v.min, v.max) }
func (v integer[T]) plain() any       { return int64(*v.p) }

type duration struct {
	p        *time.Duration
	min, max time.Duration
}

func (v duration) set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("want a duration such as 500ms, 15s or 2h4m, %s", v.limits())
	}
	if d < v.min || d > v.max {
		return fmt.Errorf("is out of range: want %s", v.limits())
	}
	*v.p = d
	return nil
}

func (v duration) String() string   { return durationText(*v.p) }
func (v duration) typeName() string { return "duration" }
func (v duration) limits() string   { return durationText(v.min) + " to " + durationText(v.max) }
func (v duration) plain() any       { return v.String() }

// durationText is Go's, without the units that are 0 at its end: 2m, not 2m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

type choice struct {
	p      *string
	accept []string
}

func (v choice) set(text string) error {
	text = strings.ToLower(text)
	if !slices.Contains(v.accept, text) {
		return fmt.Errorf("want %s", v.limits())
	}
	*v.p = text
	return nil
}

func (v choice) String() string   { return *v.p }
func (v choice) typeName() string { return "choice" }
func (v choice) plain() any       { return *v.p }

func (v choice) limits() string {
	last := len(v.accept) - 1
	return strings.Join(v.accept[:last], ", ") + " or " + v.accept[last]
}
