package demo

import (
	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// forget empties a VM's neighbour tables: it will ask again.
func forget(vm ns.Space) error {
	h, err := vm.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	neighbours, err := h.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		if n.State&netlink.NUD_NOARP == 0 {
			if err := h.NeighDel(&n); err != nil {
				return err
			}
		}
	}
	return nil
}
