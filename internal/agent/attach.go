package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/topo/attach"
	"github.com/viaduct-net/viaduct/internal/topo/binding"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// What the agent changes for the hypervisor and the container runtime of its host: Agent implements debug.Bindings.

// Bind implements debug.Bindings.
func (a *Agent) Bind(ctx context.Context, port, iface string) error {
	id, err := uuid.Parse(port)
	if err != nil {
		return fmt.Errorf("port %q is no UUID: %w", port, debug.ErrInvalid)
	}
	return caused(attach.Bind(ctx, a.cfg.Store, a.host.ID, id, iface))
}

// Unbind implements debug.Bindings.
func (a *Agent) Unbind(ctx context.Context, port string) (bool, error) {
	id, err := uuid.Parse(port)
	if err != nil {
		return false, fmt.Errorf("port %q is no UUID: %w", port, debug.ErrInvalid)
	}
	done, err := attach.Unbind(ctx, a.cfg.Store, a.host.ID, id)
	return done, caused(err)
}

// AddContainer implements debug.Bindings.
func (a *Agent) AddContainer(ctx context.Context, name string, r debug.ContainerRequest) (debug.Container, error) {
	if err := a.Ready(); err != nil {
		return debug.Container{}, fmt.Errorf("%w: %w", debug.ErrUnavailable, err)
	}
	c, err := attach.Add(ctx, a.cfg.Store, a.mirror.Snapshot(), a.host.ID, attach.Request{
		Name: name, Bridge: r.Bridge, Subnets: r.Subnets, Interface: r.Interface, PortSecurity: r.PortSecurity,
	})
	if err != nil {
		return debug.Container{}, caused(err)
	}
	x := debug.Container{Name: name, Port: c.Port.ID.String(), MAC: c.Port.MAC.String(), Interface: r.Interface}
	for i, p := range c.Port.Addresses {
		tell(&x, p.Addr(), c.Subnets[i])
	}
	x.Status, err = a.attached(ctx, c.Port.ID, r.Interface)
	return x, err
}

// RemoveContainer implements debug.Bindings.
func (a *Agent) RemoveContainer(ctx context.Context, name string) error {
	return caused(attach.Remove(ctx, a.cfg.Store, a.mirror.Snapshot(), a.host.ID, name))
}

// Containers implements debug.Bindings.
func (a *Agent) Containers(_ context.Context, prefix string) ([]debug.Container, error) {
	snap := a.mirror.Snapshot()
	list := []debug.Container{}
	for _, b := range a.bindings.State() {
		p := snap.Port(b.Port)
		if p == nil || !strings.HasPrefix(p.Name, prefix) {
			continue
		}
		x := debug.Container{Name: p.Name, Port: p.ID.String(), MAC: p.MAC.String(), Interface: b.Interface, Status: string(b.State)}
		for _, addr := range p.Addrs {
			x.Addresses = append(x.Addresses, debug.Address{Address: addr})
		}
		list = append(list, x)
	}
	return list, nil
}

// tell adds one of the container's addresses, and what its subnet says; s may be nil.
func tell(x *debug.Container, addr netip.Addr, s *model.Subnet) {
	if s == nil {
		x.Addresses = append(x.Addresses, debug.Address{Address: netip.PrefixFrom(addr, addr.BitLen())})
		return
	}
	x.Addresses = append(x.Addresses, debug.Address{Address: netip.PrefixFrom(addr, s.CIDR.Bits()), Gateway: s.Gateway})
	x.MTU = s.MTU
	for _, r := range s.HostRoutes {
		x.Routes = append(x.Routes, debug.Route{To: r.Destination, Via: r.NextHop})
	}
	for _, d := range s.DNSServers {
		x.DNS = append(x.DNS, d.String())
	}
	if x.Domain == "" {
		x.Domain = s.Domain
	}
}

// attached waits until the interface is a datapath port.
func (a *Agent) attached(ctx context.Context, port uuid.UUID, iface string) (string, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		why := "the store has not told yet"
		for _, b := range a.bindings.State() {
			if b.Port != port || b.Interface != iface {
				continue
			}
			if b.State != binding.Waiting {
				return string(b.State), nil
			}
			why = b.Reason
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("port %s is not attached to interface %s: %s: %w", port, iface, why, debug.ErrUnavailable)
		case <-tick.C:
		}
	}
}

// caused gives an error of the store the cause that the socket tells.
func caused(err error) error {
	for _, c := range []struct{ is, as error }{
		{store.ErrNotFound, debug.ErrNotFound}, {store.ErrInvalid, debug.ErrInvalid}, {store.ErrUnavailable, debug.ErrUnavailable},
		{store.ErrConflict, debug.ErrConflict}, {store.ErrExists, debug.ErrConflict}, {store.ErrReferenced, debug.ErrConflict},
	} {
		if errors.Is(err, c.is) {
			return &cause{err, c.as}
		}
	}
	return err
}

// cause is an error with one more of what it is, that its text does not tell again.
type cause struct {
	error
	as error
}

func (c *cause) Unwrap() []error { return []error{c.error, c.as} }
