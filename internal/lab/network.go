package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// network is the virtual network by id.
type network struct {
	hosts    map[uuid.UUID]*model.Host
	bindings map[uuid.UUID]*model.Binding
	ports    map[uuid.UUID]*model.Port
}

func (n *network) portNamed(name string) *model.Port {
	for _, p := range n.ports {
		if p.Name == name || p.ID.String() == name {
			return p
		}
	}
	return nil
}

// gateways are the addresses of the routers on a port's bridge.
func (n *network) gateways(port *model.Port) (list []netip.Prefix) {
	for _, p := range n.ports {
		if p.BridgeID != port.BridgeID || p.BridgeID == uuid.Nil {
			continue
		}
		if peer := n.ports[p.PeerID]; peer != nil && peer.RouterID != uuid.Nil {
			list = append(list, peer.Addresses...)
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare) // not in the order of a map
	return list
}

// load checks a set by applying it to a store in memory, and reads back what came of it.
func load(ctx context.Context, set *document.Set, scratch store.Store) (*network, error) {
	if _, err := set.Apply(ctx, scratch); err != nil {
		return nil, err
	}
	n := &network{map[uuid.UUID]*model.Host{}, map[uuid.UUID]*model.Binding{}, map[uuid.UUID]*model.Port{}}
	for _, kind := range []model.Kind{model.KindHost, model.KindBinding, model.KindPort} {
		objects, _, err := scratch.List(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			switch o := o.(type) {
			case *model.Host:
				n.hosts[o.ID] = o
			case *model.Binding:
				n.bindings[o.ID] = o
			case *model.Port:
				n.ports[o.ID] = o
			}
		}
	}
	return n, nil
}

// complete fills in what the document leaves to the port.
func (n *network) complete(d vmDoc) (VM, error) {
	if !validName(d.Name) {
		return VM{}, fmt.Errorf("name: %q: %s", d.Name, nameRule)
	}
	port := n.portNamed(d.Port)
	if port == nil {
		return VM{}, fmt.Errorf("port: no port %q", d.Port)
	}
	binding := n.bindings[port.ID]
	if binding == nil {
		return VM{}, fmt.Errorf("port: %s has no binding, so it has no interface to be plugged into", d.Port)
	}
	host := n.hosts[binding.HostID].Name
	if d.Host != "" && d.Host != host {
		return VM{}, fmt.Errorf("host: %s, but its port %s is bound on %s", d.Host, d.Port, host)
	}
	vm := VM{Name: d.Name, Port: d.Port, Host: host, Interface: binding.Interface, Device: d.Device, Plugged: d.Plugged == nil || *d.Plugged,
		NIC: plug.NIC{Name: "eth0", MAC: d.MAC, Addresses: d.Addresses, Gateways: d.Gateways, MTU: d.MTU}}
	if len(n.hosts) > 1 && vm.NIC.MTU == 0 {
		vm.NIC.MTU = OverlayMTU
	}
	if vm.Device == "" {
		vm.Device = Veth
	}
	if vm.Device != Veth && vm.Device != Tap {
		return VM{}, fmt.Errorf("device: %q: want %s or %s", d.Device, Veth, Tap)
	}
	for _, r := range d.Routes {
		vm.NIC.Routes = append(vm.NIC.Routes, plug.Route{To: r.To, Via: r.Via})
	}
	if vm.NIC.MAC == "" && port.MAC != [6]byte{} {
		vm.NIC.MAC = port.MAC.String()
	}
	gateways := n.gateways(port)
	if vm.NIC.Addresses == nil {
		for _, a := range port.Addresses {
			p, ok := onLink(a, gateways)
			if !ok {
				return VM{}, fmt.Errorf("addresses: %s is on no subnet of a router behind %s: write them with their prefix lengths here", a.Addr(), d.Port)
			}
			vm.NIC.Addresses = append(vm.NIC.Addresses, p)
		}
	}
	if vm.NIC.Gateways == nil {
		vm.NIC.Gateways = reachable(vm.NIC.Addresses, gateways)
	}
	return vm, nil
}

// onLink gives address a the prefix length of the gateway's subnet that it is in. A router port's own binding
// already has its length.
func onLink(a netip.Prefix, gateways []netip.Prefix) (netip.Prefix, bool) {
	if !a.IsSingleIP() {
		return a, true
	}
	for _, g := range gateways {
		if g.Contains(a.Addr()) {
			return netip.PrefixFrom(a.Addr(), g.Bits()), true
		}
	}
	return a, false
}

// reachable picks for each family the first gateway whose subnet one of the addresses is in.
func reachable(addresses, gateways []netip.Prefix) (list []netip.Addr) {
	var have4, have6 bool
	for _, a := range addresses {
		for _, g := range gateways {
			have := &have6
			if g.Addr().Is4() {
				have = &have4
			}
			if !*have && a.Masked() == g.Masked() && a.Addr() != g.Addr() {
				*have = true
				list = append(list, g.Addr())
			}
		}
	}
	return list
}
