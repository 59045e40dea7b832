package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plain"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

// vxlan: one TCP stream between VMs of one subnet on two hosts, in turns: through Viaduct and its tunnel; and through Linux bridges and a
// VXLAN of the kernel's. VMs have the same MTU, hosts the same cables and switch.
func vxlan(ctx context.Context, b *bench) error {
	return b.withLabOf(ctx, examples.TwoHosts, nil, func(l *lab.Lab) (err error) {
		vms, err := spaces(l, "alice", "bob")
		if err != nil {
			return err
		}
		var nics [2]plug.NIC
		for i, name := range []string{"alice", "bob"} {
			vm, err := l.VM(name)
			if err != nil {
				return err
			}
			nics[i] = vm.NIC
			nics[i].Addresses, nics[i].Gateways = vm.NIC.Addresses[:1], nil // one subnet, over IPv4 alone
		}
		linux, err := plain.Tunnel(fmt.Sprintf("benchvxlan%d", os.Getpid()), nics)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, linux.Close()) }()
		address := nics[1].Addresses[0].Addr().String()
		ways := []struct {
			name     string
			from, to ns.Space
			gbit     []float64
		}{{name: "Viaduct's tunnel", from: vms[0], to: vms[1]}, {name: "a VXLAN between Linux bridges", from: linux.VM(0), to: linux.VM(1)}}
		for range b.rounds {
			for i := range ways {
				w := &ways[i]
				r, err := b.stream(ctx, w.from, w.to, address)
				if err != nil {
					return fmt.Errorf("through %s: %w", w.name, err)
				}
				fmt.Fprintf(os.Stderr, "  %s: %.2f Gbit/s\n", w.name, r.Gbit)
				w.gbit = append(w.gbit, r.Gbit)
			}
		}
		b.emit(figure("tcp_vs_vxlan", median(ways[0].gbit), "Gbit/s").against(median(ways[1].gbit)))
		return nil
	})
}
