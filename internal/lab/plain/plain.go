// Package plain builds what Viaduct is compared with: two subnets of VMs on two Linux bridges
// and a routing namespace between them, on the same cables (package plug).
package plain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

// VM is a namespace on one of the bridges.
type VM struct {
	Name   string
	Bridge int // 0 or 1
	NIC    plug.NIC
}

// Network is two Linux bridges with a router between them.
type Network struct {
	host, router ns.Space
	vms          []ns.Space
	others       []ns.Space
}

// New builds a network whose namespaces begin with prefix; gateways are the router's addresses on the
// two bridges. What a failed New made is gone.
func New(prefix string, gateways [2][]netip.Prefix, vms []VM) (n *Network, err error) {
	n = &Network{host: ns.Space(prefix + ".host"), router: ns.Space(prefix + ".router")}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, s := range []ns.Space{n.host, n.router} {
		if err := s.Create(); err != nil {
			return n, err
		}
	}
	if err := plug.Host(n.host); err != nil {
		return n, err
	}
	if err := plug.VM(n.router); err != nil {
		return n, err
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := n.router.Sysctl(key, "1"); err != nil {
			return n, err
		}
	}
	for i, addresses := range gateways {
		if err := n.bridge(i); err != nil {
			return n, err
		}
		nic := plug.NIC{Name: fmt.Sprintf("eth%d", i), MAC: fmt.Sprintf("02:00:00:00:ff:%02x", i), Addresses: addresses}
		if err := n.plug(i, fmt.Sprintf("router%d", i), n.router, nic); err != nil {
			return n, err
		}
	}
	for _, vm := range vms {
		s := ns.Space(prefix + "." + vm.Name)
		if err := s.Create(); err != nil {
			return n, err
		}
		n.vms = append(n.vms, s)
		if err := plug.VM(s); err != nil {
			return n, err
		}
		if err := n.plug(vm.Bridge, vm.Name, s, vm.NIC); err != nil {
			return n, err
		}
	}
	return n, nil
}

// VM returns the namespace of the i-th VM.
func (n *Network) VM(i int) ns.Space { return n.vms[i] }

// Close removes everything, processes in the namespaces included.
func (n *Network) Close() (err error) {
	for _, s := range slices.Concat(n.vms, n.others, []ns.Space{n.router, n.host}) {
		if s == "" {
			continue
		}
		err = errors.Join(err, s.Kill(5*time.Second), s.Delete())
	}
	return err
}

func (n *Network) bridge(i int) error {
	h, err := n.host.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(i)}}
	if err := h.LinkAdd(b); err != nil {
		return fmt.Errorf("bridge %d: %w", i, err)
	}
	return h.LinkSetUp(b)
}

func (n *Network) plug(bridge int, ifname string, s ns.Space, nic plug.NIC) error {
	if err := plug.Veth(n.host, ifname, s, nic); err != nil {
		return err
	}
	h, err := n.host.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifname)
	if err != nil {
		return err
	}
	br, err := h.LinkByName(bridgeName(bridge))
	if err != nil {
		return err
	}
	return h.LinkSetMaster(link, br)
}

func bridgeName(i int) string { return fmt.Sprintf("br%d", i) }
