package traffic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// NextHop returns the MAC address to which this namespace sends packets for target, and the source address
// that it takes. It has the kernel resolve it: a flood begins where a guest's own traffic would.
func NextHop(ctx context.Context, target netip.Addr) (net.HardwareAddr, netip.Addr, error) {
	routes, err := netlink.RouteGet(target.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, netip.Addr{}, fmt.Errorf("route to %s: %w", target, err)
	}
	hop := routes[0].Gw
	if hop == nil {
		hop = target.AsSlice()
	}
	source, _ := netip.AddrFromSlice(routes[0].Src)
	conn, err := net.Dial("udp", netip.AddrPortFrom(target, 9).String())
	if err != nil {
		return nil, netip.Addr{}, err
	}
	defer conn.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		neighbours, err := netlink.NeighList(routes[0].LinkIndex, netlink.FAMILY_ALL)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		for _, n := range neighbours {
			if n.IP.Equal(hop) && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, source.Unmap(), nil
			}
		}
		_, _ = conn.Write([]byte{0}) // only its resolution is wanted
		select {
		case <-ctx.Done():
			return nil, netip.Addr{}, fmt.Errorf("next hop %s of %s does not answer: %w", hop, target, ctx.Err())
		case <-tick.C:
		}
	}
}
