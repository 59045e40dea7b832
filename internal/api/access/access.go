// Package access says who may do what through the API: who somebody is (a token, a certificate, or being on this machine), what
// a role may do with which kind of object, and a store that holds everybody to it.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Role is what somebody may do.
type Role string

// Roles.
const (
	Admin    Role = "admin"     // everything, the configuration of hosts included
	Operator Role = "operator"  // all objects of all tenants, hosts, bindings
	Tenant   Role = "tenant"    // the virtual networks of one tenant
	ReadOnly Role = "read-only" // sees everything, or what one tenant sees
	Agent    Role = "agent"     // one host's agent: sees all objects, changes what is its host's
)

// Roles lists all, the most powerful first.
var Roles = []Role{Admin, Operator, Tenant, ReadOnly, Agent}

// Principal is who asks.
type Principal struct {
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	Tenant string `json:"tenant,omitempty"` // of a Tenant, and of a ReadOnly that is limited to one
	Host   string `json:"host,omitempty"`   // of an Agent
}

// String names the principal in logs.
func (p Principal) String() string { return string(p.Role) + " " + p.Name }

// Validate is why there can be no such principal.
func (p Principal) Validate() error {
	switch {
	case p.Name == "":
		return fmt.Errorf("name: is missing")
	case !slices.Contains(Roles, p.Role):
		return fmt.Errorf("role: %q is none of %s", p.Role, roleList())
	case p.Role == Tenant && p.Tenant == "":
		return fmt.Errorf("tenant: is missing: whose objects may it see and change?")
	case p.Tenant != "" && p.Role != Tenant && p.Role != ReadOnly:
		return fmt.Errorf("tenant: has no meaning with role %s", p.Role)
	case (p.Role == Agent) != (p.Host != ""):
		return fmt.Errorf("host: role %s and host %q do not go together", p.Role, p.Host)
	}
	if reason := model.ValidTenant(p.Tenant); reason != "" {
		return fmt.Errorf("tenant: %s", reason)
	}
	return nil
}

func roleList() string {
	s := make([]string, len(Roles))
	for i, r := range Roles {
		s[i] = string(r)
	}
	return strings.Join(s, ", ")
}

// Verb is what is done to an object.
type Verb string

// Verbs.
const (
	Read   Verb = "read" // get, list, watch
	Create Verb = "create"
	Change Verb = "change"
	Delete Verb = "delete"
)

// May tells whether a role may ever do it to objects of a kind: which ones, the store says.
func (r Role) May(v Verb, k model.Kind) bool {
	operators := slices.Contains(model.OperatorKinds, k)
	switch r {
	case Admin, Operator:
		return true
	case Tenant:
		return !operators
	case ReadOnly:
		return v == Read
	case Agent:
		switch k {
		case model.KindHost:
			return v != Delete
		case model.KindBinding:
			return true
		case model.KindPort: // of containers, which the host's runtime attaches by itself
			return v != Change
		}
		return v == Read
	}
	return false
}

// Route is what a request needs that is about no object of the virtual network.
type Route uint8

// Routes.
const (
	Open      Route = iota // anybody: whether the server lives, and its version
	Known                  // whoever has a name: what is said of objects is up to the store
	Inspect                // what tells about everybody: metrics, configuration, events
	Configure              // changes that concern the installation
)

// MayUse tells whether p may use a route of a kind.
func (p Principal) MayUse(r Route) bool {
	switch r {
	case Open:
		return true
	case Known:
		return p.Role != ""
	case Inspect:
		return p.Role != "" && p.Role != Tenant && p.Tenant == ""
	}
	return p.Role == Admin
}

// Sees tells whether p may know that o exists.
func (p Principal) Sees(o model.Object) bool {
	return p.Role.May(Read, o.Kind()) && (p.Tenant == "" || model.Visible(o, p.Tenant))
}

// DeniedError is a refusal. It wraps model.ErrDenied.
type DeniedError struct {
	Who  Principal
	Verb Verb
	What string
	Why  string // may be empty
}

func (e *DeniedError) Error() string {
	s := fmt.Sprintf("%s may not %s %s", e.Who, e.Verb, e.What)
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// Unwrap gives model.ErrDenied.
func (e *DeniedError) Unwrap() error { return model.ErrDenied }

type principalKey struct{}

// With makes a context in which p acts.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of is who acts in ctx; nobody, who may do nothing, when nobody does.
func Of(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
