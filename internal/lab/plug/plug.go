// Package plug joins a VM's namespace to a host's: a cable (veth) or a tap
// device with somebody behind it, and the VM's addresses and routes.
package plug

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// NIC is a VM's network interface as the VM sees it.
type NIC struct {
	Name      string         `json:"name"` // eth0
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`          // with the subnet on the link
	Gateways  []netip.Addr   `json:"gateways,omitempty"` // at most one of each family
	Routes    []Route        `json:"routes,omitempty"`
	MTU       int            `json:"mtu,omitempty"` // bytes; 0: 1500
}

// Route is a static route inside a VM.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"`
}

// Host prepares a namespace for the host's end: its own IPv6 must not speak on VMs' cables.
func Host(host ns.Space) error {
	return sysctls(host, "all/disable_ipv6", "1", "default/disable_ipv6", "1")
}

// VM prepares a namespace for a VM: addresses count at once (no duplicate address
// detection) and nobody asks for routers, so that what a VM sends is what it was told to. While its cable moves
// to another host it has no carrier, but keeps its neighbours, as a VM that a hypervisor moves does: it would
// ask for them where nobody hears it, and again a second later.
func VM(vm ns.Space) error {
	if err := vm.Sysctl("net/ipv4/conf/all/arp_evict_nocarrier", "0"); err != nil {
		return err
	}
	return sysctls(vm,
		"all/ndisc_evict_nocarrier", "0",
		"all/accept_dad", "0", "default/accept_dad", "0",
		"all/accept_ra", "0", "default/accept_ra", "0",
		"all/router_solicitations", "0", "default/router_solicitations", "0")
}

func sysctls(s ns.Space, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := s.Sysctl("net/ipv6/conf/"+pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Veth lays a cable from interface ifname in host to nic in vm, and configures nic.
func Veth(host ns.Space, ifname string, vm ns.Space, nic NIC) error {
	mac, err := net.ParseMAC(nic.MAC)
	if err != nil {
		return err
	}
	hostLink, err := host.Netlink()
	if err != nil {
		return err
	}
	defer hostLink.Close()
	inside, err := openSpace(vm)
	if err != nil {
		return err
	}
	defer unix.Close(inside)
	err = hostLink.LinkAdd(&netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: ifname, MTU: mtu(nic), TxQLen: 1000},
		PeerName:         nic.Name,
		PeerHardwareAddr: mac,
		PeerMTU:          uint32(mtu(nic)),
		PeerNamespace:    netlink.NsFd(inside),
	})
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	if err := up(hostLink, ifname); err != nil {
		return err
	}
	return Configure(vm, nic)
}

// Unplug removes the host's end, and a veth's other end with it.
func Unplug(host ns.Space, ifname string) error {
	h, err := host.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	return h.LinkDel(link)
}

// Move takes the host's end of a cable to another host, where it is up again.
func Move(from ns.Space, ifname string, to ns.Space) error {
	h, err := from.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	there, err := to.Netlink()
	if err != nil {
		return err
	}
	defer there.Close()
	inside, err := openSpace(to)
	if err != nil {
		return err
	}
	defer unix.Close(inside)
	link, err := h.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	if err := h.LinkSetNsFd(link, inside); err != nil {
		return fmt.Errorf("interface %s into %s: %w", ifname, to, err)
	}
	return up(there, ifname)
}

// Configure gives an existing interface its MAC, addresses and routes, and brings it up.
func Configure(vm ns.Space, nic NIC) error {
	h, err := vm.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(nic.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", nic.Name, err)
	}
	if mac, err := net.ParseMAC(nic.MAC); err == nil {
		if err := h.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("interface %s: MAC %s: %w", nic.Name, mac, err)
		}
	}
	if err := h.LinkSetMTU(link, mtu(nic)); err != nil {
		return fmt.Errorf("interface %s: MTU %d: %w", nic.Name, mtu(nic), err)
	}
	for _, p := range nic.Addresses {
		a := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}
		if err := h.AddrReplace(link, a); err != nil {
			return fmt.Errorf("interface %s: address %s: %w", nic.Name, p, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: %w", nic.Name, err)
	}
	routes := nic.Routes
	for _, gw := range nic.Gateways {
		everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		routes = append(routes[:len(routes):len(routes)], Route{everywhere, gw})
	}
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("interface %s: route %s via %s: %w", nic.Name, r.To, r.Via, err)
		}
	}
	return nil
}

func up(h *netlink.Handle, ifname string) error {
	link, err := h.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	return h.LinkSetUp(link)
}

func openSpace(s ns.Space) (int, error) {
	fd, err := unix.Open(s.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("network namespace %s: %w", s, err)
	}
	return fd, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func mtu(n NIC) int {
	if n.MTU == 0 {
		return 1500
	}
	return n.MTU
}
