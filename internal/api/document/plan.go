package document

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Action is what applying does to an object.
type Action string

// Actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Deleted    Action = "deleted"
)

// Change is one object's.
type Change struct {
	Kind   model.Kind
	ID     uuid.UUID
	Label  string // name, or id of what has none; a binding goes by its port's name
	Action Action
}

func (c Change) String() string { return fmt.Sprintf("%s/%s %s", c.Kind, c.Label, c.Action) }

// Apply makes the store hold what the documents say, in one transaction: objects are found by
// name, or by id, and created or replaced; what is as it should be is not touched. With
// an error nothing has changed. When somebody else changes the same objects at
// the same time it starts over, a few times.
func (s *Set) Apply(ctx context.Context, st store.Store) ([]Change, error) {
	const attempts = 4
	for i := 1; ; i++ {
		changes, ops, err := s.Plan(ctx, st)
		if err != nil || len(ops) == 0 {
			return changes, err
		}
		_, err = st.Txn(ctx, ops...)
		if err == nil {
			return changes, nil
		}
		meanwhile := errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists)
		if !meanwhile || i == attempts {
			return nil, err
		}
	}
}

// Plan tells what Apply would do now, and by which operations, having checked that they are valid. Errors in
// the documents are Errors, with positions.
func (s *Set) Plan(ctx context.Context, st store.Store) ([]Change, []store.Op, error) {
	p, err := s.planner(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	p.identify(s.Docs)
	for _, d := range s.Docs {
		if id, ok := p.ids[d]; ok {
			p.object(d, id)
		}
	}
	if err := p.errs.orNil(); err != nil {
		return nil, nil, err
	}
	for i := range p.changes {
		p.changes[i].Label = p.index.Label(p.changes[i].Kind, p.changes[i].ID)
	}
	// Watchers see the operations in this order: what is referred to first.
	slices.SortStableFunc(p.ops, func(a, b store.Op) int { return rank(a) - rank(b) })
	return p.changes, p.ops, p.check()
}

func (s *Set) planner(ctx context.Context, st store.Store) (*planner, error) {
	home, err := ref.Home(ctx, st)
	if err != nil {
		return nil, err
	}
	p := &planner{home: home, index: ref.New(), stored: ref.New(), graph: model.NewGraph(), ids: make(map[*Doc]uuid.UUID), docs: make(map[model.Key]source)}
	p.index.Home, p.stored.Home = home, home
	for _, k := range model.Kinds {
		objects, _, err := st.List(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			p.index.Add(o)
			p.stored.Add(o)
			p.graph.Load(model.Clone(o))
		}
	}
	return p, nil
}

// rank orders operations: creation in the order of model.Kinds, deletion in the reverse.
func rank(op store.Op) int {
	r := slices.Index(model.Kinds, op.Object.Kind())
	if op.Verb == store.Delete {
		return -r
	}
	return r
}

// source is where an object comes from: a document, or the field of one.
type source struct {
	doc  *Doc
	path string
}

// planner compares documents with the store.
type planner struct {
	home    string     // tenant on whose behalf; empty: an operator's
	index   *ref.Index // as it will be
	stored  *ref.Index // as it is
	graph   *model.Graph
	ids     map[*Doc]uuid.UUID
	docs    map[model.Key]source
	ops     []store.Op
	changes []Change
	errs    Errors
}

func (p *planner) fail(d *Doc, path string, err error) {
	p.errs = append(p.errs, d.fail(path, err))
}

// identify settles which objects the documents are, so that any may refer to any.
func (p *planner) identify(docs []*Doc) {
	for _, d := range docs {
		if _, ok := d.Value.(*Binding); ok {
			p.ids[d] = uuid.Nil // known once its port is
			continue
		}
		kind := d.Value.Kind()
		name, idText := d.Value.identity()
		id := uuid.New()
		if idText != "" {
			var err error
			if id, err = wire.ParseID(idText); err != nil {
				p.fail(d, "id", err)
				continue
			}
		} else if o := p.stored.NamedFor(p.tenant(d), kind, name); o != nil {
			id = o.GetMeta().ID
		}
		if first, ok := p.docs[model.Key{Kind: kind, ID: id}]; ok {
			p.fail(d, "", fmt.Errorf("is described twice: first at %s", first.doc.Pos))
			continue
		}
		if o := p.index.NamedFor(p.tenant(d), kind, name); o != nil && o.GetMeta().ID != id {
			if first, ok := p.docs[model.KeyOf(o)]; ok {
				p.fail(d, "", fmt.Errorf("is described twice: first at %s", first.doc.Pos))
				continue
			}
		}
		o := model.New(kind)
		o.GetMeta().ID, o.GetMeta().Name, o.GetMeta().Tenant = id, name, p.tenant(d)
		if have := p.stored.Get(kind, id); have != nil {
			o.GetMeta().Tenant = have.GetMeta().Tenant
		}
		p.index.Add(o)
		p.docs[model.KeyOf(o)] = source{doc: d}
		p.ids[d] = id
	}
}

// object plans the object of a document, and a port's binding.
func (p *planner) object(d *Doc, id uuid.UUID) {
	switch v := d.Value.(type) {
	case *Bridge:
		p.put(d, "", &wire.Bridge{
			Meta: meta(id, v.Name), AdminStateUp: v.AdminStateUp,
			PreForwardingID:  p.find(d, "pre_forwarding", model.KindChain, v.PreForwarding),
			PostForwardingID: p.find(d, "post_forwarding", model.KindChain, v.PostForwarding),
		})
	case *Router:
		p.put(d, "", &wire.Router{
			Meta: meta(id, v.Name), AdminStateUp: v.AdminStateUp,
			PreRoutingID:  p.find(d, "pre_routing", model.KindChain, v.PreRouting),
			PostRoutingID: p.find(d, "post_routing", model.KindChain, v.PostRouting),
		})
	case *TunnelZone:
		p.put(d, "", &wire.TunnelZone{Meta: meta(id, v.Name)})
	case *Host:
		p.host(d, v, id)
	case *Port:
		p.port(d, v, id)
	case *Route:
		p.put(d, "", &wire.Route{
			Meta: meta(id, v.Name), RouterID: p.find(d, "router", model.KindRouter, v.Router), Destination: v.Destination, Source: v.Source,
			NextHop: v.NextHop, PortID: p.find(d, "port", model.KindPort, v.Port), Gateway: v.Gateway, Weight: v.Weight,
		})
	case *FloatingIP:
		p.put(d, "", &wire.FloatingIP{
			Meta: meta(id, v.Name), PortID: p.find(d, "port", model.KindPort, v.Port), Address: v.Address, FixedAddress: v.FixedAddress,
		})
	case *Chain:
		p.put(d, "", &wire.Chain{Meta: meta(id, v.Name)})
	case *PortGroup:
		p.put(d, "", &wire.PortGroup{Meta: meta(id, v.Name), Stateful: v.Stateful})
	case *AddressGroup:
		p.put(d, "", &wire.AddressGroup{Meta: meta(id, v.Name), Addresses: v.Addresses})
	case *Rule:
		p.rule(d, v, id)
	case *QoSPolicy:
		p.put(d, "", &wire.QoSPolicy{Meta: meta(id, v.Name), Egress: v.Egress, Ingress: v.Ingress, DSCP: v.DSCP})
	case *Mirror:
		p.mirror(d, v, id)
	case *SecurityGroup:
		p.put(d, "", &wire.SecurityGroup{Meta: meta(id, v.Name), Stateful: v.Stateful})
	case *SecurityGroupRule:
		p.securityGroupRule(d, v, id)
	case *Subnet:
		p.subnet(d, v, id)
	case *LoadBalancer:
		p.loadBalancer(d, v, id)
	case *Pool:
		p.put(d, "", &wire.Pool{Meta: meta(id, v.Name), SessionPersistence: v.SessionPersistence, PersistenceTimeout: v.PersistenceTimeout,
			HealthMonitor: v.HealthMonitor})
	case *PoolMember:
		p.poolMember(d, v, id)
	case *Binding:
		port := p.find(d, "port", model.KindPort, v.Port)
		host := p.find(d, "host", model.KindHost, v.Host)
		p.put(d, "", &wire.Binding{Meta: wire.Meta{ID: port, Name: v.Name}, PortID: port, HostID: host, Interface: v.Interface})
	}
}

func meta(id uuid.UUID, name string) wire.Meta { return wire.Meta{ID: id.String(), Name: name} }

func (p *planner) port(d *Doc, v *Port, id uuid.UUID) {
	w := &wire.Port{
		Meta: meta(id, v.Name), AdminStateUp: v.AdminStateUp, MAC: v.MAC, Addresses: v.Addresses, Masquerade: v.Masquerade,
		BridgeID: p.find(d, "bridge", model.KindBridge, v.Bridge),
		RouterID: p.find(d, "router", model.KindRouter, v.Router),
		PeerID:   p.find(d, "peer", model.KindPort, v.Peer),

		InboundFilterID:  p.find(d, "inbound_filter", model.KindChain, v.InboundFilter),
		OutboundFilterID: p.find(d, "outbound_filter", model.KindChain, v.OutboundFilter),
		PortGroups:       p.findAll(d, "port_groups", model.KindPortGroup, v.PortGroups),
		PortSecurity:     v.PortSecurity, AllowedAddressPairs: v.AllowedAddressPairs, VLAN: v.VLAN,
		QoSPolicyID: p.find(d, "qos_policy", model.KindQoSPolicy, v.QoSPolicy),
	}
	if v.SecurityGroups != nil {
		w.SecurityGroups = append([]string{}, p.findAll(d, "security_groups", model.KindSecurityGroup, v.SecurityGroups)...)
	}
	stored, _ := p.stored.Get(model.KindPort, id).(*model.Port)
	if !d.given("peer") && stored != nil && stored.PeerID != uuid.Nil {
		w.PeerID = stored.PeerID.String()
	}
	p.put(d, "", w)
	if !d.given("binding") {
		return
	}
	if v.Binding == nil {
		if o := p.stored.Get(model.KindBinding, id); o != nil {
			p.remove(o)
		}
		return
	}
	p.put(d, "binding", &wire.Binding{
		Meta: wire.Meta{ID: id.String()}, PortID: id.String(),
		HostID: p.find(d, "binding.host", model.KindHost, v.Binding.Host), Interface: v.Binding.Interface,
	})
}

func (p *planner) host(d *Doc, v *Host, id uuid.UUID) {
	w := &wire.Host{Meta: meta(id, v.Name)}
	if stored, ok := p.stored.Get(model.KindHost, id).(*model.Host); ok && !d.given("tunnels") {
		w.Tunnels = wire.FromModel(stored).(*wire.Host).Tunnels // the host itself may have said so
	}
	for i, t := range v.Tunnels {
		zone := p.find(d, fmt.Sprintf("tunnels[%d].zone", i), model.KindZone, t.Zone)
		w.Tunnels = append(w.Tunnels, wire.TunnelEnd{ZoneID: zone, Address: t.Address})
	}
	p.put(d, "", w)
}

// tenant is whose the document's object is, as far as it says.
func (p *planner) tenant(d *Doc) string { return cmp.Or(d.owner.Tenant, p.home) }

// find resolves a reference to an id; "" when there is none, or none that leads anywhere.
func (p *planner) find(d *Doc, path string, kind model.Kind, s string) string {
	if s == "" {
		return ""
	}
	o, err := p.index.FindFor(p.tenant(d), kind, s)
	if err != nil {
		p.fail(d, path, dangling{err})
		return ""
	}
	return o.GetMeta().ID.String()
}

// dangling is a reference that leads nowhere. It hides store.ErrNotFound: it is the
// document that is wrong, nothing that was asked for is missing.
type dangling struct{ err error }

func (e dangling) Error() string { return e.err.Error() }

// put plans that the store shall hold w, which comes from the field of d at path.
func (p *planner) put(d *Doc, path string, w wire.Object) {
	if len(p.errs) > 0 {
		return // references are missing: it could not be judged
	}
	o, err := w.Model()
	var fields wire.FieldErrors
	if errors.As(err, &fields) {
		for _, f := range fields {
			p.fail(d, join(path, f.Path), fmt.Errorf("%q %s", f.Value, f.Message))
		}
		return
	}
	model.Normalize(o)
	m := o.GetMeta()
	p.own(o, d)
	if first, ok := p.docs[model.KeyOf(o)]; ok && (first.doc != d || first.path != path) {
		p.fail(d, path, fmt.Errorf("is described twice: first at %s", first.doc.Pos))
		return
	}
	p.docs[model.KeyOf(o)] = source{d, path}
	change := Change{Kind: o.Kind(), ID: m.ID, Action: Created}
	op := store.Op{Verb: store.Create, Object: o}
	if have := p.stored.Get(o.Kind(), m.ID); have != nil {
		model.Inherit(o, have)
		if m.Name == "" {
			m.Name = have.GetMeta().Name // it was found by id: leaving the name out keeps it
		}
		rev := have.GetMeta().Revision
		m.Revision = rev
		change.Action = Configured
		if reflect.DeepEqual(o, have) {
			change.Action = Unchanged
		}
		op.Verb, op.IfRevision = store.Replace, rev
	}
	p.index.Add(o)
	p.changes = append(p.changes, change)
	if change.Action != Unchanged {
		p.ops = append(p.ops, op)
	}
}

// own sets whose o is: what the document says, else what is stored, else ours. Hosts and bindings are nobody's.
func (p *planner) own(o model.Object, d *Doc) {
	m := o.GetMeta()
	have := p.stored.Get(o.Kind(), m.ID)
	if slices.Contains(model.OperatorKinds, o.Kind()) {
		if o.Kind() == d.Value.Kind() { // not a port's binding
			m.Tenant = d.owner.Tenant
		}
		return
	}
	m.Tenant = p.tenant(d)
	if have != nil {
		m.Shared = have.GetMeta().Shared
		if d.owner.Tenant == "" {
			m.Tenant = have.GetMeta().Tenant
		}
	}
	if d.owner.Shared != nil {
		m.Shared = *d.owner.Shared
	}
}

func (p *planner) remove(o model.Object) {
	m := o.GetMeta()
	p.ops = append(p.ops, store.Op{Verb: store.Delete, Object: o, IfRevision: m.Revision})
	p.changes = append(p.changes, Change{Kind: o.Kind(), ID: m.ID, Action: Deleted})
}

// check tries the operations on a copy of the network, to say where in the documents they are wrong.
func (p *planner) check() error {
	if len(p.ops) == 0 {
		return nil
	}
	ops := slices.Clone(p.ops)
	for i := range ops {
		ops[i].Object, ops[i].Tenant = model.Clone(ops[i].Object), p.home
	}
	staged, err := p.graph.Stage(ops...)
	if err == nil {
		staged.Rollback()
		return nil
	}
	var field *model.FieldError
	var object *model.ObjectError
	switch {
	case errors.As(err, &field):
		if src, ok := p.docs[model.Key{Kind: field.Kind, ID: field.ID}]; ok {
			return Errors{src.doc.fail(join(src.path, field.Field), because{field.Reason, err})}
		}
	case errors.As(err, &object):
		if src, ok := p.docs[model.Key{Kind: object.Kind, ID: object.ID}]; ok {
			return Errors{src.doc.fail(src.path, because{fmt.Sprintf("%s: %s", object.Err, object.Detail), err})}
		}
	}
	return err
}

// because words an error anew and stays it.
type because struct {
	text string
	error
}

func (e because) Error() string { return e.text }
func (e because) Unwrap() error { return e.error }

func join(path, field string) string {
	if path == "" || field == "" {
		return path + field
	}
	return path + "." + field
}
