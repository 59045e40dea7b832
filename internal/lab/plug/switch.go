package plug

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// Switch makes an Ethernet switch (a Linux bridge) in a namespace.
func Switch(space ns.Space, name string) error {
	h, err := space.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	snooping := false
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &snooping}
	if err := h.LinkAdd(b); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return up(h, name)
}

// Cable joins a host to a switch: nic there, a port called ifname here.
func Cable(space ns.Space, bridge, ifname string, host ns.Space, nic NIC) error {
	h, err := space.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	inside, err := openSpace(host)
	if err != nil {
		return err
	}
	defer unix.Close(inside)
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ifname, MTU: mtu(nic)}, PeerName: nic.Name, PeerMTU: uint32(mtu(nic)), PeerNamespace: netlink.NsFd(inside)}); err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	port, err := h.LinkByName(ifname)
	if err != nil {
		return err
	}
	sw, err := h.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(port, sw); err != nil {
		return fmt.Errorf("interface %s into %s: %w", ifname, bridge, err)
	}
	if err := up(h, ifname); err != nil {
		return err
	}
	// The host's own IPv6 is off (Host): here it is wanted, and at once.
	if err := sysctls(host, nic.Name+"/accept_dad", "0", nic.Name+"/disable_ipv6", "0"); err != nil {
		return err
	}
	return Configure(host, nic)
}
