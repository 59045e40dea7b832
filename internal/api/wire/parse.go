package wire

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// FieldError says what is wrong with one field.
type FieldError struct {
	Path    string // such as "addresses[0]"
	Value   string // as it was given; may be empty
	Message string // reads on from the value: "is not a MAC address"
}

func (e FieldError) Error() string {
	if e.Value == "" {
		return e.Path + ": " + e.Message
	}
	return fmt.Sprintf("%s: %q %s", e.Path, e.Value, e.Message)
}

// FieldErrors are all that is wrong with an object. Never empty.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	s := make([]string, len(e))
	for i := range e {
		s[i] = e[i].Error()
	}
	return strings.Join(s, "; ")
}

// parser collects what is wrong instead of stopping at the first.
type parser struct{ errs FieldErrors }

func (p *parser) fail(path, value, message string) {
	p.errs = append(p.errs, FieldError{path, value, message})
}

func (p *parser) done(o model.Object) (model.Object, error) {
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return o, nil
}

func (p *parser) meta(m Meta) model.Meta {
	return model.Meta{ID: p.id("id", m.ID), Name: m.Name, Tenant: m.Tenant, Shared: m.Shared, Revision: m.Revision}
}

func (p *parser) id(path, s string) uuid.UUID {
	if s == "" {
		return uuid.Nil
	}
	id, err := ParseID(s)
	if err != nil {
		p.fail(path, s, "is not a UUID")
	}
	return id
}

// ParseID accepts only the canonical form of a UUID, 36 characters: package uuid would
// also take braces, URNs and bare hexadecimals, which then would not compare as text.
func ParseID(s string) (uuid.UUID, error) {
	if len(s) != 36 {
		return uuid.Nil, fmt.Errorf("%q is not a UUID", s)
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%q is not a UUID", s)
	}
	return id, nil
}

func (p *parser) mac(path, s string) match.MAC {
	m, err := ParseMAC(s)
	if err != nil {
		p.fail(path, s, "is not a MAC address such as 02:00:00:00:00:01")
	}
	return m
}

// ParseMAC reads six pairs of hexadecimal digits with colons, in either case.
func ParseMAC(s string) (match.MAC, error) {
	var m match.MAC
	pairs := strings.Split(s, ":")
	if len(pairs) != len(m) {
		return m, fmt.Errorf("%q is not a MAC address", s)
	}
	for i, pair := range pairs {
		b, err := strconv.ParseUint(pair, 16, 8)
		if err != nil || len(pair) != 2 {
			return match.MAC{}, fmt.Errorf("%q is not a MAC address", s)
		}
		m[i] = byte(b)
	}
	return m, nil
}

// address reads an address with its prefix length; the length may be left out where it
// can only be the full one.
func (p *parser) address(path, s string, bare bool) netip.Prefix {
	if bare {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			return netip.PrefixFrom(a, a.BitLen())
		}
	}
	a, err := netip.ParsePrefix(s)
	switch {
	case err != nil && bare:
		p.fail(path, s, "is not an address such as 10.0.1.10")
	case err != nil:
		p.fail(path, s, "is not an address with a prefix length such as 10.0.1.1/24")
	}
	return a
}

func (p *parser) ip(path, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.fail(path, s, "is not an IP address such as 10.0.1.254")
	}
	return a
}

func (p *parser) prefix(path, s string) netip.Prefix {
	a, err := netip.ParsePrefix(s)
	if err != nil {
		p.fail(path, s, "is not a prefix such as 10.0.2.0/24")
	}
	return a
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
