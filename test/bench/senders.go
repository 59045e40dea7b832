package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plain"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

// senders are VMs like the rogues, on cables that end in namespaces where all that comes is dropped: no switch has anything to do with it. Victims lose to
// them what they lose to anybody who sends as much on the same CPUs. What they lose to an attack beyond that is the switch's fault.
type senders []*plain.Network

// sinkRules drop what comes through a cable before a network stack looks at it.
const sinkRules = `table netdev sink {
	chain ingress {
		type filter hook ingress device eth0 priority 0
		drop
	}
}
`

func newSenders(rogues int) (list senders, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, list.close())
		}
	}()
	names := make(map[string]bool)
	for i := range rogues {
		names[attacks.Rogue(i, false)] = true
	}
	for _, v := range attacks.VMs(rogues) {
		if !names[v.Name] {
			continue
		}
		gateway := plug.NIC{Name: "eth0", MAC: "02:00:00:00:ff:01", Addresses: []netip.Prefix{netip.PrefixFrom(v.Gateway, 24)}}
		n, err := plain.Pair(fmt.Sprintf("bench%d%s", os.Getpid(), v.Name),
			plug.NIC{Name: "eth0", MAC: v.MAC, Addresses: v.Addresses, Gateways: []netip.Addr{v.Gateway}}, gateway)
		if err != nil {
			return list, err
		}
		list = append(list, n)
		if err := errors.Join(knowNeighbour(n.VM(0), v.Gateway, gateway), filter(n.VM(1), sinkRules)); err != nil {
			return list, err
		}
	}
	return list, nil
}

// knowNeighbour has a namespace know a neighbour that will not answer.
func knowNeighbour(s ns.Space, addr netip.Addr, nic plug.NIC) error {
	h, err := s.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(nic.MAC)
	if err != nil {
		return err
	}
	return h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
}

// space is the sender in the place of a rogue, of either kind.
func (list senders) space(vm string) (ns.Space, error) {
	for i, n := range list {
		if vm == attacks.Rogue(i, false) || vm == attacks.Rogue(i, true) {
			return n.VM(0), nil
		}
	}
	return "", fmt.Errorf("there is no sender for %s", vm)
}

func (list senders) close() (err error) {
	for _, n := range list {
		err = errors.Join(err, n.Close())
	}
	return err
}
