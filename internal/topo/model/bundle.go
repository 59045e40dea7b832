package model

import (
	"cmp"
	"slices"

	"github.com/google/uuid"
)

// Bundle names a set of objects that are read and followed together, because whoever needs one of them needs the others: a bridge with
// what it switches by, a chain with its rules. An object may be in several.
type Bundle struct {
	Kind BundleKind
	ID   uuid.UUID
}

// BundleKind says what a bundle is made of.
type BundleKind string

// Kinds of bundles. Those that have the name of a kind of objects hold the object with the bundle's id; a bundle that does not hold it
// is that of an object that does not exist.
const (
	// A bridge or router: itself, its ports, their bindings, floating IPs and peers, mirrors of all these; and subnets, routes and load
	// balancers. Of a router also the subnets of the bridges at its ports' other ends.
	BundleBridge BundleKind = "bridge"
	BundleRouter BundleKind = "router"

	BundlePort         BundleKind = "port"          // the port alone: it says of which device it is
	BundleChain        BundleKind = "chain"         // with its rules
	BundleAddressGroup BundleKind = "address_group" // alone
	BundleQoSPolicy    BundleKind = "qos_policy"    // alone
	BundleHost         BundleKind = "host"          // alone
	BundleBalancer     BundleKind = "load_balancer" // alone
	BundlePool         BundleKind = "pool"          // with its members
	BundleSecurity     BundleKind = "security_group"
	BundlePortGroup    BundleKind = "port_group" // with the ports that are in it

	BundleMembers   BundleKind = "members"   // of a security group: the ports that name it
	BundleDefault   BundleKind = "default"   // of a tenant (DefaultOf): its default security group, and the ports that are in it
	BundleBindings  BundleKind = "bindings"  // of a host: bindings of ports that it has or is to have, and these ports
	BundleBalancers BundleKind = "balancers" // AllBalancers: every load balancer
	BundleHosts     BundleKind = "hosts"     // AllHosts: every host
)

// AllHosts is the bundle of all hosts.
var AllHosts = Bundle{BundleHosts, uuid.Max}

// AllBalancers is the bundle of all load balancers.
var AllBalancers = Bundle{BundleBalancers, uuid.Max}

// DefaultOf is the bundle of a tenant's default security group.
func DefaultOf(tenant string) Bundle {
	return Bundle{BundleDefault, uuid.NewSHA1(uuid.MustParse("c9a1a2f0-6b0e-4f3e-9d3c-2f6f5b9d7a10"), []byte(tenant))}
}

// Device is the bundle of the bridge or router that has a port.
func (p *Port) Device() Bundle {
	if p.RouterID != uuid.Nil {
		return Bundle{BundleRouter, p.RouterID}
	}
	return Bundle{BundleBridge, p.BridgeID}
}

// Bundles lists those that hold o, which is in the graph, in order.
func (g *Graph) Bundles(o Object) []Bundle {
	var bs []Bundle
	add := func(k BundleKind, id uuid.UUID) {
		if id != uuid.Nil {
			bs = append(bs, Bundle{k, id})
		}
	}
	device := func(port uuid.UUID) {
		if p, ok := g.Get(KindPort, port).(*Port); ok {
			bs = append(bs, p.Device())
		}
	}
	id := o.GetMeta().ID
	switch o := o.(type) {
	case *Port:
		add(BundlePort, id)
		bs = append(bs, o.Device())
		device(o.PeerID)
		if b, ok := g.Get(KindBinding, id).(*Binding); ok {
			add(BundleBindings, b.HostID)
			add(BundleBindings, b.FromID)
		}
		for _, p := range o.PortGroups {
			add(BundlePortGroup, p)
		}
		for _, s := range o.SecurityGroups {
			add(BundleMembers, s)
		}
		if o.InDefault() {
			bs = append(bs, DefaultOf(o.Tenant))
		}
	case *Binding:
		device(o.PortID)
		add(BundleBindings, o.HostID)
		add(BundleBindings, o.FromID)
	case *FloatingIP:
		device(o.PortID)
	case *Mirror:
		switch source := o.Source(); source.Kind {
		case KindPort:
			device(source.ID)
		default:
			add(BundleKind(source.Kind), source.ID)
		}
	case *Subnet:
		add(BundleBridge, o.BridgeID)
		for x := range g.ReferrersOf(Key{KindBridge, o.BridgeID}, KindPort) {
			if peer, ok := g.Get(KindPort, x.(*Port).PeerID).(*Port); ok {
				add(BundleRouter, peer.RouterID)
			}
		}
	case *Route:
		add(BundleRouter, o.RouterID)
	case *Rule:
		add(BundleChain, o.ChainID)
	case *SecurityGroup:
		add(BundleSecurity, id)
		if o.Name == DefaultGroup {
			bs = append(bs, DefaultOf(o.Tenant))
		}
	case *SecurityGroupRule:
		add(BundleSecurity, o.GroupID)
	case *LoadBalancer:
		add(BundleBalancer, id)
		add(BundleRouter, o.RouterID)
		bs = append(bs, AllBalancers)
	case *PoolMember:
		add(BundlePool, o.PoolID)
	case *Host:
		add(BundleHost, id)
		bs = append(bs, AllHosts)
	case *Bridge, *Router, *Chain, *AddressGroup, *QoSPolicy, *Pool, *PortGroup:
		add(BundleKind(o.Kind()), id)
	}
	slices.SortFunc(bs, CompareBundles)
	return slices.Compact(bs)
}

// CompareBundles orders by kind, then id.
func CompareBundles(a, b Bundle) int {
	if a.Kind != b.Kind {
		if a.Kind < b.Kind {
			return -1
		}
		return 1
	}
	return slices.Compare(a.ID[:], b.ID[:])
}

// CompareKeys orders by kind, then id.
func CompareKeys(a, b Key) int {
	return CompareBundles(Bundle{BundleKind(a.Kind), a.ID}, Bundle{BundleKind(b.Kind), b.ID})
}

// around lists the objects whose bundles may be others after a change of one from was to is, either of which may be nil: itself
// first. The graph is in the new state.
func (g *Graph) around(was, is Object) []Key {
	some := is
	if some == nil {
		some = was
	}
	keys := []Key{KeyOf(some)}
	if b, ok := some.(*Binding); ok {
		keys = append(keys, Key{KindPort, b.PortID})
	}
	for _, o := range []Object{was, is} {
		p, ok := o.(*Port)
		if !ok {
			continue
		}
		links := []uuid.UUID{p.BridgeID}
		if peer, ok := g.Get(KindPort, p.PeerID).(*Port); ok {
			keys = append(keys, KeyOf(peer))
			links = append(links, peer.BridgeID)
		}
		keys = append(keys, Key{KindBinding, p.ID})
		for _, k := range []Kind{KindFloatingIP, KindMirror} {
			for o := range g.ReferrersOf(KeyOf(p), k) {
				keys = append(keys, KeyOf(o))
			}
		}
		for _, link := range links {
			for o := range g.ReferrersOf(Key{KindBridge, link}, KindSubnet) {
				keys = append(keys, KeyOf(o))
			}
		}
	}
	return keys
}

// Index remembers which bundles hold what, so that it can be told what a transaction changes. Not safe for concurrent use.
type Index struct{ of map[Key][]Bundle }

// NewIndex makes the index of a graph.
func NewIndex(g *Graph) *Index {
	x := &Index{of: make(map[Key][]Bundle)}
	for _, k := range Kinds {
		for o := range g.All(k) {
			x.of[KeyOf(o)] = g.Bundles(o)
		}
	}
	return x
}

// Of lists the bundles that hold an object. The caller must not change it.
func (x *Index) Of(k Key) []Bundle { return x.of[k] }

// Placing is what a transaction changes in a bundle: Object, which is new to the bundle or has changed, or, when it is
// nil, that Key is no longer in it.
type Placing struct {
	Bundle Bundle
	Key    Key
	Object Object
}

// Plan says what changes with a transaction, ordered by bundle, then key. The graph is in the new state already. The index is only changed by Apply.
func (x *Index) Plan(g *Graph, changes []Change) []Placing {
	var ps []Placing
	seen := make(map[Key]bool)
	changed := make(map[Key]bool, len(changes))
	for _, c := range changes {
		changed[Key{kindOf(c), changedID(c)}] = true
	}
	for _, c := range changes {
		for _, k := range g.around(c.Old, c.New) {
			if seen[k] {
				continue
			}
			seen[k] = true
			was := x.of[k]
			o := g.Get(k.Kind, k.ID)
			var is []Bundle
			if o != nil {
				is = g.Bundles(o)
			}
			for _, b := range is {
				if changed[k] || !slices.Contains(was, b) {
					ps = append(ps, Placing{b, k, o})
				}
			}
			for _, b := range was {
				if !slices.Contains(is, b) {
					ps = append(ps, Placing{Bundle: b, Key: k})
				}
			}
		}
	}
	slices.SortFunc(ps, func(a, b Placing) int { return cmp.Or(CompareBundles(a.Bundle, b.Bundle), CompareKeys(a.Key, b.Key)) })
	return ps
}

func kindOf(c Change) Kind {
	if c.New != nil {
		return c.New.Kind()
	}
	return c.Old.Kind()
}

// Apply takes a plan over.
func (x *Index) Apply(ps []Placing) {
	for _, p := range ps {
		bs := x.of[p.Key]
		i, have := slices.BinarySearchFunc(bs, p.Bundle, CompareBundles)
		switch {
		case p.Object != nil && !have:
			x.of[p.Key] = slices.Insert(slices.Clip(bs), i, p.Bundle)
		case p.Object == nil && have:
			if bs = slices.Delete(slices.Clone(bs), i, i+1); len(bs) == 0 {
				delete(x.of, p.Key)
			} else {
				x.of[p.Key] = bs
			}
		}
	}
}

// Ended lists the bundles that are over when an object is deleted: they are its own.
func Ended(k Key) []Bundle {
	switch k.Kind {
	case KindSecurityGroup:
		return []Bundle{{BundleSecurity, k.ID}, {BundleMembers, k.ID}}
	case KindHost:
		return []Bundle{{BundleHost, k.ID}, {BundleBindings, k.ID}}
	case KindBridge, KindRouter, KindPort, KindChain, KindAddressGroup, KindQoSPolicy, KindLoadBalancer, KindPool, KindPortGroup:
		return []Bundle{{BundleKind(k.Kind), k.ID}}
	}
	return nil
}
