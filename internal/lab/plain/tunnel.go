package plain

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

const underlay = "underlay" // the switch, and each host's interface to it

// Tunnel is two hosts on an Ethernet switch, each with a Linux bridge that has a VM and one end of a VXLAN. Namespaces' names begin with prefix.
func Tunnel(prefix string, vms [2]plug.NIC) (n *Network, err error) {
	n = &Network{host: ns.Space(prefix + ".host")} // where the switch is
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.host.Create(); err != nil {
		return n, err
	}
	if err := plug.Switch(n.host, underlay); err != nil {
		return n, err
	}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 255, byte(i) + 1}) }
	for i, nic := range vms {
		host, vm := ns.Space(fmt.Sprintf("%s.host%d", prefix, i)), ns.Space(fmt.Sprintf("%s.vm%d", prefix, i))
		n.others, n.vms = append(n.others, host), append(n.vms, vm)
		if err := errors.Join(host.Create(), vm.Create(), plug.Host(host), plug.VM(vm)); err != nil {
			return n, err
		}
		cable := plug.NIC{Name: underlay, Addresses: []netip.Prefix{netip.PrefixFrom(address(i), 24)}}
		if err := plug.Cable(n.host, underlay, fmt.Sprintf("host%d", i), host, cable); err != nil {
			return n, err
		}
		if err := tunnelEnd(host, address(i), address(1-i), vm, nic); err != nil {
			return n, err
		}
	}
	return n, nil
}

// tunnelEnd makes a host's bridge, with the VM and the way to the other host.
func tunnelEnd(host ns.Space, here, there netip.Addr, vm ns.Space, nic plug.NIC) error {
	const toVM, vxlan = "vm", "vxlan"
	if err := plug.Switch(host, bridgeName(0)); err != nil {
		return err
	}
	if err := plug.Veth(host, toVM, vm, nic); err != nil {
		return err
	}
	h, err := host.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	err = h.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: vxlan, MTU: nic.MTU}, VxlanId: 1, Port: 4789, SrcAddr: here.AsSlice(), Group: there.AsSlice(), Learning: true})
	if err != nil {
		return fmt.Errorf("VXLAN device: %w", err)
	}
	br, err := h.LinkByName(bridgeName(0))
	if err != nil {
		return err
	}
	for _, name := range []string{toVM, vxlan} {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		if err := errors.Join(h.LinkSetMaster(link, br), h.LinkSetUp(link)); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
	}
	return nil
}
