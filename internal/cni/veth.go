package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// veth is the cable from the host to the container.
type veth struct {
	host    string // the host's end
	ifname  string // the container's
	sandbox string
	inside  *netlink.Handle // in the container's namespace
	hostMAC string
}

// newVeth lays the cable, and brings the host's end up. What an ADD that was interrupted has left goes first.
func newVeth(host, alias string, args *skel.CmdArgs) (*veth, error) {
	space, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "the container's network namespace", fmt.Sprintf("%s: %v", args.Netns, err))
	}
	defer space.Close()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if _, err := inside.LinkByName(args.IfName); err == nil { // it may be of an ADD that was well: nothing is removed
		inside.Close()
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME", fmt.Sprintf("the container has an interface %s already", args.IfName))
	}
	v := &veth{host: host, ifname: args.IfName, sandbox: args.Netns, inside: inside}
	if err := v.lay(alias, space); err != nil {
		v.close()
		return nil, errors.Join(err, v.remove())
	}
	return v, nil
}

func (v *veth) lay(alias string, space netns.NsHandle) error {
	if err := deleteLink(v.host); err != nil {
		return err
	}
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: v.host}, PeerName: v.ifname, PeerNamespace: netlink.NsFd(space)})
	if err != nil {
		return fmt.Errorf("interface %s: %w", v.host, err)
	}
	link, err := netlink.LinkByName(v.host)
	if err != nil {
		return fmt.Errorf("interface %s: %w", v.host, err)
	}
	v.hostMAC = link.Attrs().HardwareAddr.String()
	// The host must not speak on a container's cable. A kernel without IPv6 has no such file.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+v.host+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("interface %s: %w", v.host, err)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil { // by which GC knows it again
		return fmt.Errorf("interface %s: %w", v.host, err)
	}
	return netlink.LinkSetUp(link)
}

func (v *veth) close() { v.inside.Close() }

// remove takes the cable away, both ends.
func (v *veth) remove() error { return deleteLink(v.host) }

// configure tells the container's end what the topology says of it.
func (v *veth) configure(x *debug.Container) error {
	link, err := v.inside.LinkByName(v.ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", v.ifname, err)
	}
	mac, err := net.ParseMAC(x.MAC)
	if err != nil {
		return err
	}
	if err := v.inside.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("interface %s: MAC %s: %w", v.ifname, mac, err)
	}
	if x.MTU > 0 {
		if err := v.inside.LinkSetMTU(link, x.MTU); err != nil {
			return fmt.Errorf("interface %s: MTU %d: %w", v.ifname, x.MTU, err)
		}
	}
	if err := v.inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: %w", v.ifname, err)
	}
	for _, a := range x.Addresses {
		// The topology says whose address it is: nobody else has to be asked (RFC 4862 section 5.4).
		if err := v.inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a.Address), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("interface %s: address %s: %w", v.ifname, a.Address, err)
		}
	}
	for _, r := range x.Routes {
		if err := v.inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice()}); err != nil {
			return fmt.Errorf("interface %s: route to %s via %s: %w", v.ifname, r.To, r.Via, err)
		}
	}
	return nil
}

// result is what ADD answers.
func (v *veth) result(x *debug.Container) *current.Result {
	one := 1
	r := &current.Result{CNIVersion: current.ImplementedSpecVersion, Interfaces: []*current.Interface{
		{Name: v.host, Mac: v.hostMAC},
		{Name: v.ifname, Mac: x.MAC, Mtu: x.MTU, Sandbox: v.sandbox},
	}}
	for _, a := range x.Addresses {
		r.IPs = append(r.IPs, &current.IPConfig{Interface: &one, Address: *ipNet(a.Address), Gateway: a.Gateway.AsSlice()})
	}
	for _, to := range x.Routes {
		r.Routes = append(r.Routes, &types.Route{Dst: *ipNet(to.To), GW: to.Via.AsSlice()})
	}
	r.DNS = types.DNS{Nameservers: x.DNS, Domain: x.Domain}
	return r
}

// compare checks that the container's end is as ADD has answered, and as the port is.
func compare(args *skel.CmdArgs, want *current.Result, port *debug.Container) error {
	space, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "the container's network namespace", fmt.Sprintf("%s: %v", args.Netns, err))
	}
	defer space.Close()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(args.IfName)
	if err != nil {
		return wrong("interface %s: %v", args.IfName, err)
	}
	at := link.Attrs()
	if at.Flags&net.FlagUp == 0 {
		return wrong("interface %s is down", args.IfName)
	}
	if at.HardwareAddr.String() != port.MAC {
		return wrong("interface %s has MAC %s, its port has %s", args.IfName, at.HardwareAddr, port.MAC)
	}
	for _, i := range want.Interfaces {
		if i.Sandbox == args.Netns && i.Name == args.IfName && (i.Mac != port.MAC || i.Mtu != 0 && i.Mtu != at.MTU) {
			return wrong("interface %s has MTU %d and its port MAC %s, want %d and %s", args.IfName, at.MTU, port.MAC, i.Mtu, i.Mac)
		}
	}
	addrs, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, ip := range want.IPs {
		if !hasAddress(addrs, &ip.Address) {
			return wrong("interface %s has no address %s", args.IfName, &ip.Address)
		}
		if !portHas(port, ip.Address.IP) {
			return wrong("port %s has no address %s any more", port.Name, ip.Address.IP)
		}
	}
	for _, r := range want.Routes {
		if err := checkRoute(inside, at.Index, r); err != nil {
			return err
		}
	}
	return nil
}

func hasAddress(addrs []netlink.Addr, want *net.IPNet) bool {
	for _, a := range addrs {
		if a.IP.Equal(want.IP) && a.Mask.String() == want.Mask.String() {
			return true
		}
	}
	return false
}

func portHas(p *debug.Container, ip net.IP) bool {
	for _, a := range p.Addresses {
		if ip.Equal(a.Address.Addr().AsSlice()) {
			return true
		}
	}
	return false
}

func checkRoute(inside *netlink.Handle, index int, r *types.Route) error {
	family := netlink.FAMILY_V6
	if r.Dst.IP.To4() != nil {
		family = netlink.FAMILY_V4
	}
	have, err := inside.RouteListFiltered(family, &netlink.Route{LinkIndex: index, Gw: r.GW}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_GW)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.Dst != nil && h.Dst.String() == r.Dst.String() {
			return nil
		}
		if ones, _ := r.Dst.Mask.Size(); h.Dst == nil && ones == 0 {
			return nil
		}
	}
	return wrong("there is no route to %s via %s", &r.Dst, r.GW)
}

// defaultRoutes lead to the first gateway of each family.
func defaultRoutes(addrs []debug.Address) (rs []debug.Route) {
	var have [2]bool
	for _, a := range addrs {
		if !a.Gateway.IsValid() {
			continue
		}
		if family := &have[a.Gateway.BitLen()/128]; !*family {
			*family = true
			everywhere := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			if a.Gateway.Is4() {
				everywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			}
			rs = append(rs, debug.Route{To: everywhere, Via: a.Gateway})
		}
	}
	return rs
}

// deleteLink removes an interface of the host; one that does not exist is no error.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// ownLinks are the names of ports whose host's ends are there.
func ownLinks(prefix string) (names []string, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if a := l.Attrs(); strings.HasPrefix(a.Alias, prefix) && a.Name == hostInterface(a.Alias) {
			names = append(names, a.Alias)
		}
	}
	return names, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
