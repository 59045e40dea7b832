package lab

import (
	"fmt"
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// The underlay is a switch in a namespace of its own, with a cable to each host that is in a tunnel zone.
const (
	underlayZone = "underlay" // of hosts that the file puts in none
	underlayNIC  = "underlay" // a host's interface
	// OverlayMTU is what a VM's packets may be long: the underlay's 1500 less VXLAN over IPv6.
	OverlayMTU = 1430
)

// addUnderlay puts hosts that the file has in no tunnel zone into one, when there are several.
func addUnderlay(set *document.Set) {
	var hosts []*document.Host
	for _, d := range set.Docs {
		if h, ok := d.Value.(*document.Host); ok {
			if len(h.Tunnels) > 0 {
				return // the file says how hosts reach each other
			}
			hosts = append(hosts, h)
		}
	}
	if len(hosts) < 2 {
		return
	}
	set.Add(&document.TunnelZone{Name: underlayZone}, document.Pos{})
	address := netip.MustParseAddr("192.168.255.0")
	for _, h := range hosts {
		address = address.Next()
		h.Tunnels = []document.TunnelEnd{{Zone: underlayZone, Address: address.String()}}
	}
}

// underlayAddresses are a host's own, each on a link that all hosts share.
func underlayAddresses(h *model.Host) (list []netip.Prefix) {
	for _, t := range h.Tunnels {
		bits := 64
		if t.Address.Is4() {
			bits = 24
		}
		list = append(list, netip.PrefixFrom(t.Address, bits))
	}
	return list
}

// wire lays the cables between the hosts.
func (l *Lab) wire() error {
	if l.Underlay == "" {
		return nil
	}
	if err := plug.Switch(l.Underlay, underlayNIC); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	for i, h := range l.Hosts {
		if len(h.Addresses) == 0 {
			continue
		}
		if err := plug.Cable(l.Underlay, underlayNIC, fmt.Sprintf("host%d", i), h.Space, plug.NIC{Name: underlayNIC, Addresses: h.Addresses}); err != nil {
			return fmt.Errorf("underlay: host %s: %w", h.Name, err)
		}
	}
	return nil
}
