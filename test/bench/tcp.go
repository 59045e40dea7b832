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

// tcp: one stream between the subnets, through Viaduct and through Linux bridges with a routing
// namespace, in turns; and what the kernel says an established packet costs in Viaduct's program.
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
		var ours, theirs []float64
		for range b.rounds {
			o, err := b.stream(ctx, vms[0], vms[1])
			if err != nil {
				return fmt.Errorf("through Viaduct: %w", err)
			}
			t, err := b.stream(ctx, linux.VM(0), linux.VM(1))
			if err != nil {
				return fmt.Errorf("through Linux bridges: %w", err)
			}
			fmt.Fprintf(os.Stderr, "  %.2f Gbit/s, Linux %.2f Gbit/s\n", o.Gbit, t.Gbit)
			ours, theirs = append(ours, o.Gbit), append(theirs, t.Gbit)
		}
		f := figure("tcp_vs_linux", median(ours), "Gbit/s").against(median(theirs))
		b.emit(f)
		return b.established(ctx, l, vms[0], vms[1])
	})
}

func (b *bench) stream(ctx context.Context, from, to ns.Space) (r traffic.TCPResult, err error) {
	receive, err := b.tools().StartReady(ctx, to, "tcp", "receive", "--duration=1m")
	if err != nil {
		return r, err
	}
	duration := min(b.duration, 3*time.Second)
	err = b.tools().Run(ctx, from, nil, "tcp", "send", bob+":5001", "--duration="+duration.String())
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
