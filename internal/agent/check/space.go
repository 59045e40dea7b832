// Package check looks after the members of load balancers: it talks to them over the virtual network, as a client would, out of a
// network namespace of its own whose only way out is a port of their router.
package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/google/uuid"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/health"
)

// Space is the namespace from which the members behind one router are checked. It goes away with the process, whatever ends that.
// Its methods are for one goroutine.
type Space struct {
	router uuid.UUID
	ns     netns.NsHandle
	link   string

	running map[uuid.UUID]*running // by member
	wg      sync.WaitGroup
}

// Open makes the namespace and the pair of interfaces of which the host's end is the router's port. mac is the router's.
func Open(router uuid.UUID, mac match.MAC) (*Space, error) {
	s := &Space{router: router, link: health.Interface(router), running: make(map[uuid.UUID]*running)}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is elsewhere now, ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.ns, err = netns.Get()
		}
		if err == nil {
			// Connections must come from ports by which the router knows their answers.
			err = os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", health.PortLow, 65535), 0o644)
		}
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0o644) // of IPv6, too
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	if err := s.plug(mac); err != nil {
		s.Close()
		return nil, fmt.Errorf("interface %s: %w", s.link, err)
	}
	return s, nil
}

const inside = "health"

func (s *Space) plug(mac match.MAC) error {
	if old, err := netlink.LinkByName(s.link); err == nil {
		if err := netlink.LinkDel(old); err != nil { // of an agent that was killed, not gone yet
			return err
		}
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: s.link}, PeerName: inside, PeerNamespace: netlink.NsFd(s.ns), PeerHardwareAddr: health.MAC[:]}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(pair); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(s.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(inside)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	at := link.Attrs().Index
	for _, x := range []struct {
		own, gateway netip.Addr
		all          string
	}{{health.Source4, gateway4, "0.0.0.0/0"}, {health.Source6, gateway6, "::/0"}} {
		bits := x.own.BitLen()
		own := &netlink.Addr{IPNet: &net.IPNet{IP: x.own.AsSlice(), Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NODAD}
		_, all, err := net.ParseCIDR(x.all)
		if err == nil {
			err = h.AddrAdd(link, own)
		}
		if err == nil {
			err = h.NeighSet(&netlink.Neigh{LinkIndex: at, State: netlink.NUD_PERMANENT, IP: x.gateway.AsSlice(), HardwareAddr: mac[:]})
		}
		if err == nil {
			err = h.RouteAdd(&netlink.Route{LinkIndex: at, Dst: all, Gw: x.gateway.AsSlice(), Src: x.own.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x.own, err)
		}
	}
	return nil
}

// The router, as the namespace sees it. Nobody answers for these: their MAC address is known.
var (
	gateway4 = netip.MustParseAddr("169.254.254.1")
	gateway6 = netip.MustParseAddr("fdff:7669:6164:ff::1")
)

// Close ends the checks and takes the namespace away.
func (s *Space) Close() {
	for _, r := range s.running {
		r.stop()
	}
	s.wg.Wait()
	if link, err := netlink.LinkByName(s.link); err == nil {
		_ = netlink.LinkDel(link) // it goes with the namespace otherwise
	}
	_ = s.ns.Close()
}

// dial connects from within the namespace. The socket stays in it.
func (s *Space) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = s.do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// do runs f in the namespace.
func (s *Space) do(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := netns.Set(s.ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // the thread stays locked and is not used again
	}
	runtime.UnlockOSThread()
	return err
}
