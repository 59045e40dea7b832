package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Request is a port that a container runtime wants.
type Request struct {
	Name      string   // of the port: found by it, or created under it
	Bridge    string   // name or id
	Subnets   []string // names or ids; none: the bridge's first of each family
	Interface string   // of the host
	// PortSecurity of a port that is created.
	PortSecurity bool
}

// Container is what the container has to be told.
type Container struct {
	Port    *model.Port
	Subnets []*model.Subnet // of its addresses, in their order; nil for one that is in none of the bridge's
}

// errTaken is an address that somebody has who is not in the snapshot yet.
var errTaken = errors.New("address taken")

// Add makes the port that r asks for, unless it exists, gives it a MAC and a free address of each subnet, unless it has some, and binds it,
// all in one transaction. The store refuses addresses that are on the bridge already, so that two hosts never
// give out the same one; snap, which may be old, only says where not to try.
func Add(ctx context.Context, s store.Store, snap *view.Snapshot, host uuid.UUID, r Request) (*Container, error) {
	br, subnets, err := resolve(ctx, s, r)
	if err != nil {
		return nil, err
	}
	taken := map[netip.Addr]bool{}
	var c *Container
	for {
		err := again(func() (err error) {
			c, err = add(ctx, s, snap, host, r, br, subnets, taken)
			return err
		})
		if !errors.Is(err, errTaken) {
			return c, err
		}
	}
}

func add(ctx context.Context, s store.Store, snap *view.Snapshot, host uuid.UUID, r Request, br *model.Bridge, subnets []*model.Subnet, taken map[netip.Addr]bool) (*Container, error) {
	p, err := named(ctx, s, snap, r.Name)
	if err != nil {
		return nil, err
	}
	verb := store.Replace
	if p == nil {
		verb = store.Create
		p = &model.Port{Meta: model.Meta{ID: portID(r.Name), Name: r.Name}, BridgeID: br.ID, AdminStateUp: true, PortSecurity: r.PortSecurity}
	} else if p.BridgeID != br.ID {
		return nil, fmt.Errorf("port %s is not of bridge %s: %w", r.Name, r.Bridge, store.ErrConflict)
	}
	var ops []store.Op
	if p.MAC == (match.MAC{}) || len(p.Addresses) == 0 {
		if p.MAC == (match.MAC{}) {
			p.MAC = model.PortMAC(p.ID)
		}
		for _, sub := range subnets {
			a, err := free(sub, p, func(a netip.Addr) bool { return taken[a] || known(snap, br.ID, a) })
			if err != nil {
				return nil, err
			}
			p.Addresses = append(p.Addresses, netip.PrefixFrom(a, a.BitLen()))
		}
		ops = append(ops, store.Op{Verb: verb, Object: p, IfRevision: p.Revision})
	}
	b, err := bound(ctx, s, p.ID)
	if err != nil {
		return nil, err
	}
	bind := store.Op{Verb: store.Create, Object: &model.Binding{Meta: model.Meta{ID: p.ID}, PortID: p.ID, HostID: host, Interface: r.Interface}}
	if b != nil {
		if b.HostID != host {
			return nil, elsewhere(ctx, s, b)
		}
		bind.Verb, bind.IfRevision = store.Replace, b.Revision
	}
	if b == nil || b.Interface != r.Interface {
		ops = append(ops, bind)
	}
	c := &Container{Port: p}
	for _, a := range p.Addresses {
		i := slices.IndexFunc(subnets, func(s *model.Subnet) bool { return s.CIDR.Contains(a.Addr()) })
		if i < 0 {
			c.Subnets = append(c.Subnets, nil)
			continue
		}
		c.Subnets = append(c.Subnets, subnets[i])
	}
	if len(ops) == 0 {
		return c, nil
	}
	return c, claimed(write(ctx, s, host, r.Interface, ops...), p, taken)
}

// claimed turns a refusal of one of the port's addresses into errTaken, and remembers the address.
func claimed(err error, p *model.Port, taken map[netip.Addr]bool) error {
	var refused *model.FieldError
	if !errors.As(err, &refused) || refused.ID != p.ID {
		return err
	}
	for i, a := range p.Addresses {
		if refused.Field == fmt.Sprintf("addresses[%d]", i) && !taken[a.Addr()] {
			taken[a.Addr()] = true
			return errTaken
		}
	}
	return err
}

// Remove deletes the port of that name if the host has it; where others refer to it, it is unbound only. A port that
// does not exist, or that another host has, is left as it is.
func Remove(ctx context.Context, s store.Store, snap *view.Snapshot, host uuid.UUID, name string) error {
	return again(func() error {
		p, err := named(ctx, s, snap, name)
		if err != nil || p == nil {
			return err
		}
		b, err := bound(ctx, s, p.ID)
		if err != nil || b != nil && b.HostID != host {
			return err
		}
		ops := []store.Op{{Verb: store.Delete, Object: p, IfRevision: p.Revision}}
		if b != nil {
			ops = append(ops, store.Op{Verb: store.Delete, Object: b, IfRevision: b.Revision})
		}
		_, err = s.Txn(ctx, ops...)
		if errors.Is(err, store.ErrReferenced) && b != nil {
			_, err = s.Txn(ctx, ops[1])
		}
		return err
	})
}

// portID is the id of a port that Add creates: it follows from the name, so that the port is found without a search.
func portID(name string) uuid.UUID {
	return uuid.NewSHA1(uuid.MustParse("5fb2ac6c-3a8f-4f0c-9d5e-6a8a2b1f7c11"), []byte(name))
}

// named finds the port that Add has created, or another one of that name that the snapshot knows. Nil when there is none.
func named(ctx context.Context, s store.Store, snap *view.Snapshot, name string) (*model.Port, error) {
	ids := []uuid.UUID{portID(name)}
	for id, p := range snap.Ports {
		if p.Name == name {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		o, err := s.Get(ctx, model.KindPort, id)
		if err == nil && o.GetMeta().Name == name {
			return o.(*model.Port), nil
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return nil, nil
}

// resolve finds the bridge and the subnets.
func resolve(ctx context.Context, s store.Store, r Request) (*model.Bridge, []*model.Subnet, error) {
	o, err := find(ctx, s, model.KindBridge, r.Bridge)
	if err != nil {
		return nil, nil, err
	}
	br := o.(*model.Bridge)
	all, _, err := s.List(ctx, model.KindSubnet)
	if err != nil {
		return nil, nil, err
	}
	var subnets []*model.Subnet
	if len(r.Subnets) == 0 {
		var have [2]bool
		for _, o := range all {
			sub := o.(*model.Subnet)
			if family := &have[sub.CIDR.Addr().BitLen()/128]; sub.BridgeID == br.ID && !*family {
				*family = true
				subnets = append(subnets, sub)
			}
		}
		if len(subnets) == 0 {
			return nil, nil, fmt.Errorf("bridge %s has no subnet to take addresses from: %w", r.Bridge, store.ErrNotFound)
		}
		slices.SortFunc(subnets, func(a, b *model.Subnet) int { return a.CIDR.Compare(b.CIDR) })
		return br, subnets, nil
	}
	for _, name := range r.Subnets {
		o, err := find(ctx, s, model.KindSubnet, name)
		if err != nil {
			return nil, nil, err
		}
		sub := o.(*model.Subnet)
		if sub.BridgeID != br.ID {
			return nil, nil, fmt.Errorf("subnet %s is not of bridge %s: %w", name, r.Bridge, store.ErrInvalid)
		}
		subnets = append(subnets, sub)
	}
	return br, subnets, nil
}

func find(ctx context.Context, s store.Store, kind model.Kind, name string) (model.Object, error) {
	all, _, err := s.List(ctx, kind)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if m := o.GetMeta(); m.Name == name || m.ID.String() == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("%s %q: %w", kind, name, store.ErrNotFound)
}
