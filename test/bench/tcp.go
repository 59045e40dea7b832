package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plain"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// tcp: one stream between the subnets, in turns: through Viaduct; through Linux bridges with a routing namespace that is a stateful
// firewall; and through a bare pair of interfaces. And what the kernel says an established packet costs in Viaduct's program.
func tcp(ctx context.Context, b *bench) error {
	return b.withLab(ctx, nil, func(l *lab.Lab) (err error) {
		vms, err := spaces(l, "alice", "bob")
		if err != nil {
			return err
		}
		linux, err := linuxNetwork(l)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, linux.Close()) }()
		if err := linux.Firewall(); err != nil {
			return err
		}
		cable := func(n int) plug.NIC {
			return plug.NIC{Name: "eth0", MAC: fmt.Sprintf("02:00:00:00:0a:%02x", n), Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(n)}), 24)}}
		}
		pair, err := plain.Pair(fmt.Sprintf("benchpair%d", os.Getpid()), cable(11), cable(10))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pair.Close()) }()
		ways := []struct {
			name     string
			from, to ns.Space
			gbit     []float64
		}{{name: "Viaduct", from: vms[0], to: vms[1]}, {name: "Linux bridges", from: linux.VM(0), to: linux.VM(1)}, {name: "a veth pair", from: pair.VM(0), to: pair.VM(1)}}
		for range b.rounds {
			for i := range ways {
				w := &ways[i]
				r, err := b.stream(ctx, w.from, w.to, bob)
				if err != nil {
					return fmt.Errorf("through %s: %w", w.name, err)
				}
				fmt.Fprintf(os.Stderr, "  %s: %.2f Gbit/s\n", w.name, r.Gbit)
				w.gbit = append(w.gbit, r.Gbit)
			}
		}
		ours := median(ways[0].gbit)
		b.emit(figure("tcp_vs_linux", ours, "Gbit/s").against(median(ways[1].gbit)), figure("tcp_vs_veth", ours, "Gbit/s").against(median(ways[2].gbit)))
		return b.established(ctx, l, vms[0], vms[1])
	})
}

// stream sends TCP to an address of the receiver.
func (b *bench) stream(ctx context.Context, from, to ns.Space, address string) (r traffic.TCPResult, err error) {
	receive, err := b.tools().StartReady(ctx, to, "tcp", "receive", "--duration=1m")
	if err != nil {
		return r, err
	}
	duration := min(b.duration, 3*time.Second)
	err = b.tools().Run(ctx, from, nil, "tcp", "send", address+":5001", "--duration="+duration.String())
	return r, joinStop(err, receive, &r)
}

// linuxNetwork is the same two VMs, with the same addresses, on Linux bridges.
func linuxNetwork(l *lab.Lab) (*plain.Network, error) {
	var vms []plain.VM
	for i, name := range []string{"alice", "bob"} {
		vm, err := l.VM(name)
		if err != nil {
			return nil, err
		}
		vms = append(vms, plain.VM{Name: name, Bridge: i, NIC: plug.NIC{Name: vm.NIC.Name, MAC: vm.NIC.MAC, Addresses: vm.NIC.Addresses, Gateways: vm.NIC.Gateways}})
	}
	gateway := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	for i := range vms { // over IPv4 alone
		vms[i].NIC.Addresses, vms[i].NIC.Gateways = vms[i].NIC.Addresses[:1], vms[i].NIC.Gateways[:1]
	}
	return plain.New(fmt.Sprintf("benchlinux%d", os.Getpid()), [2][]netip.Prefix{gateway("10.0.1.1/24"), gateway("10.0.2.1/24")}, vms)
}
