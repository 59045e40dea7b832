package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Move takes a running VM from its host to another one: its port is bound there, and the host's end of its cable is moved, or
// laid anew where the agent of its host is dead. It returns when the port is up.
func (l *Lab) Move(ctx context.Context, vm *VM, to *Host) error {
	err := l.change(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, holdAtMost) // the server may be silent, by a fault that somebody is about to heal
		defer cancel()
		return l.move(ctx, vm, to)
	})
	if err != nil {
		return err
	}
	agent := debug.NewClient(to.Socket())
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := l.portsUp(ctx, to, agent)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// move does all of Move but wait.
func (l *Lab) move(ctx context.Context, vm *VM, to *Host) error {
	from, err := l.Host(vm.Host)
	switch {
	case err != nil:
		return err
	case from.Name == to.Name:
		return fmt.Errorf("VM %s is on host %s already", vm.Name, to.Name)
	case vm.Device != Veth || !vm.Plugged:
		return fmt.Errorf("VM %s cannot move: it needs a %s that is plugged in", vm.Name, Veth)
	}
	if err := l.rebind(ctx, vm, to); err != nil {
		return fmt.Errorf("VM %s: %w", vm.Name, err)
	}
	vm.Host = to.Name
	if debug.NewClient(from.Socket()).Ready(ctx) == nil {
		err = plug.Move(from.Space, vm.Interface, to.Space)
	} else if err = plug.Unplug(from.Space, vm.Interface); err == nil { // what it was plugged into has died with its agent
		err = l.plug(vm)
	}
	if err != nil {
		return fmt.Errorf("VM %s: %w", vm.Name, err)
	}
	return l.save()
}

// rebind binds the VM's port to the interface of the same name of a host.
func (l *Lab) rebind(ctx context.Context, vm *VM, to *Host) error {
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	x, err := ref.Load(ctx, c, model.KindPort, model.KindHost, model.KindBinding)
	if err != nil {
		return err
	}
	port, err := x.Find(model.KindPort, vm.Port)
	if err != nil {
		return err
	}
	host, err := x.Find(model.KindHost, to.Name)
	if err != nil {
		return err
	}
	id := port.GetMeta().ID
	_, err = c.Txn(ctx, store.Op{Verb: store.Replace, Object: &model.Binding{Meta: model.Meta{ID: id}, PortID: id, HostID: host.GetMeta().ID, Interface: vm.Interface}})
	return err
}
