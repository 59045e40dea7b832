package model

import "github.com/google/uuid"

// Scope is a part of a graph: objects, and bundles with what is in them.
type Scope struct {
	Keys    []Key
	Bundles []Bundle
}

// ScopeOf is what it takes to judge a transaction: a graph of what is in it stages ops as the whole graph does, errors included, and an index of that
// graph plans the same changes of bundles. ok is false when it takes the whole graph, or might. Small are transactions of bindings and of new hosts, which are an agent's: hosts hold
// no more of a cloud than concerns them, and hypervisors bind and move ports often.
func ScopeOf(ops []Op) (s Scope, ok bool) {
	for _, op := range ops {
		if op.Tenant != "" { // tenants are told less, by what they own
			return Scope{}, false
		}
		switch o := op.Object.(type) {
		case *Binding:
			s.Keys = append(s.Keys, KeyOf(o), Key{KindPort, o.ID}) // the port is named by the binding's id, or it is refused
			if op.Verb == Delete {
				continue
			}
			if o.Name != "" { // it has to be nobody else's in the cloud
				return Scope{}, false
			}
			s.Keys = append(s.Keys, Key{KindPort, o.PortID}, Key{KindHost, o.HostID})
			s.add(Bundle{BundleBindings, o.HostID}) // each interface of a host is one port's
		case *Host:
			if op.Verb == Delete { // what refers to it may be anywhere
				return Scope{}, false
			}
			s.Keys = append(s.Keys, KeyOf(o))
			for _, t := range o.Tunnels {
				s.Keys = append(s.Keys, Key{KindZone, t.ZoneID})
			}
			s.add(AllHosts) // for names and addresses
		default:
			return Scope{}, false
		}
	}
	return s, len(ops) > 0
}

func (s *Scope) add(b Bundle) {
	if b.ID != uuid.Nil {
		s.Bundles = append(s.Bundles, b)
	}
}
