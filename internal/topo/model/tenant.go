package model

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// MaxTenant bounds a tenant's name, in bytes.
const MaxTenant = 255

// OperatorKinds are about the installation, not about virtual networks: they are never a tenant's, and no tenant sees them.
var OperatorKinds = []Kind{KindZone, KindHost, KindBinding}

// Visible tells whether a tenant may know that o exists.
func Visible(o Object, tenant string) bool {
	m := o.GetMeta()
	return !slices.Contains(OperatorKinds, o.Kind()) && (m.Tenant == tenant || m.Shared)
}

// PartOf is what o is a piece of: who may not change that may not add pieces to it, shared or not. False: o stands for itself.
func PartOf(o Object) (k Key, ok bool) {
	switch o := o.(type) {
	case *Port:
		k = Key{KindRouter, o.RouterID} // a bridge, if shared, is there for others' ports
	case *Subnet:
		k = Key{KindBridge, o.BridgeID}
	case *Route:
		k = Key{KindRouter, o.RouterID}
	case *Rule:
		k = Key{KindChain, o.ChainID}
	case *SecurityGroupRule:
		k = Key{KindSecurityGroup, o.GroupID}
	case *Mirror:
		k = o.Source()
	case *FloatingIP:
		k = Key{KindPort, o.PortID}
	case *Binding:
		k = Key{KindPort, o.PortID}
	case *LoadBalancer:
		k = Key{KindRouter, o.RouterID}
	case *PoolMember:
		k = Key{KindPool, o.PoolID}
	}
	return k, k.ID != uuid.Nil
}

// ValidTenant is why a name cannot be a tenant's; "" when it can.
func ValidTenant(name string) string {
	if len(name) > MaxTenant {
		return fmt.Sprintf("is longer than %d bytes", MaxTenant)
	}
	for _, r := range name {
		if r <= ' ' || r >= 0x7f || r == '"' || r == '\\' {
			return fmt.Sprintf("%q is not allowed: use letters, digits and punctuation of ASCII", r)
		}
	}
	return ""
}

func validateTenant(o Object) error {
	m := o.GetMeta()
	if reason := ValidTenant(m.Tenant); reason != "" {
		return fieldErr(o, "tenant", reason)
	}
	if slices.Contains(OperatorKinds, o.Kind()) {
		if m.Tenant != "" {
			return fieldErr(o, "tenant", fmt.Sprintf("a %s belongs to the installation", o.Kind()))
		}
		if m.Shared {
			return fieldErr(o, "shared", fmt.Sprintf("a %s belongs to the installation", o.Kind()))
		}
	}
	return nil
}

// own settles whose a created or replaced object is. have is what it replaces, nil if nothing.
func (d *draft) own(o, have Object) error {
	m := o.GetMeta()
	if have != nil {
		h := have.GetMeta()
		if m.Tenant == "" {
			m.Tenant = h.Tenant
		}
		if m.Tenant != h.Tenant {
			return fieldErr(o, "tenant", "cannot change: delete the object and create another")
		}
	}
	if d.tenant == "" {
		return nil
	}
	if m.Tenant == "" {
		m.Tenant = d.tenant
	}
	if m.Tenant != d.tenant {
		return fieldErr(o, "tenant", fmt.Sprintf("is not yours, %s: leave it out", d.tenant))
	}
	if key := keyed(o); key != nil && have == nil && *key != 0 {
		return fieldErr(o, "tunnel_key", "is chosen by the system: leave it out") // or all ports in the cloud could be counted
	}
	if have != nil && have.GetMeta().Shared {
		m.Shared = true
	} else if m.Shared {
		return &ObjectError{Ref: RefTo(o), Err: ErrDenied, Detail: "only an operator shares objects with other tenants"}
	}
	return nil
}

// allRefs are what o refers to, its peer included.
func allRefs(o Object) []Key {
	refs := Refs(o)
	if p, ok := o.(*Port); ok && p.PeerID != uuid.Nil {
		refs = append(refs, Key{KindPort, p.PeerID})
	}
	return refs
}

// validate judges one change. A tenant's may add references only to what the tenant sees; with what it does not see, the answer
// is by construction the one for what does not exist.
func (s *Staged) validate(c Change) error {
	g, t := s.graph, s.tenant
	if t == "" || c.New.GetMeta().Tenant != t {
		return g.validate(c)
	}
	if part, ok := PartOf(c.New); ok && c.Old == nil {
		if whole := g.Get(part.Kind, part.ID); whole != nil && Visible(whole, t) && whole.GetMeta().Tenant != t {
			return fieldErr(c.New, string(part.Kind), fmt.Sprintf("%s is shared with you, but not yours to change", RefTo(whole)))
		}
	}
	var had []Key
	if c.Old != nil {
		had = allRefs(c.Old)
	}
	var hidden []Object
	for _, k := range allRefs(c.New) {
		if o := g.Get(k.Kind, k.ID); o != nil && !Visible(o, t) && !slices.Contains(had, k) {
			hidden = append(hidden, o)
			delete(g.objects[k.Kind], k.ID)
		}
	}
	err := g.validate(c)
	for _, o := range hidden {
		g.objects[o.Kind()][o.GetMeta().ID] = o
	}
	if err == nil && len(hidden) > 0 {
		err = fieldErr(c.New, string(hidden[0].Kind()), fmt.Sprintf("no %s %s", hidden[0].Kind(), hidden[0].GetMeta().ID))
	}
	return err
}

// known leaves out of e the names of what a tenant does not see.
func (g *Graph) known(e *ReferenceError, tenant string) *ReferenceError {
	if tenant == "" {
		return e
	}
	n := len(e.By)
	e.By = slices.DeleteFunc(e.By, func(r Ref) bool { return !Visible(g.Get(r.Kind, r.ID), tenant) })
	e.Others = n - len(e.By)
	return e
}

// blind words an error about an object that the tenant does not see as one about its own change.
func (g *Graph) blind(err error, c Change, tenant string) error {
	var f *FieldError
	if tenant == "" || !errors.As(err, &f) {
		return err
	}
	if o := g.Get(f.Kind, f.ID); o == nil || Visible(o, tenant) {
		return err
	}
	return fieldErr(cmp.Or(c.New, c.Old), "id", fmt.Sprintf("a %s of others would no longer fit", f.Kind))
}
