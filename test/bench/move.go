package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

const (
	movesPerRound = 4
	moveStream    = 3 * time.Second // of one stream, of which the VM moves in the first half
	moveRate      = "--rate=10000000"
)

// move: for how long a VM hears nothing of an established TCP connection while it moves to another host, and back, many times. Its interface
// goes from one namespace to the other: what a hypervisor needs to stop and start the VM comes on top of it. The sender writes every 10 ms.
func move(ctx context.Context, b *bench) error {
	return b.withLabOf(ctx, examples.TwoHosts, nil, func(l *lab.Lab) error {
		vms, err := spaces(l, "carol", "bob")
		if err != nil {
			return err
		}
		bob, err := l.VM("bob")
		if err != nil {
			return err
		}
		var gaps []float64
		for i := range b.rounds * movesPerRound {
			to := &l.Hosts[i%2] // he is on the second one
			gap, err := b.moved(ctx, l, bob, to, vms[0], vms[1])
			if err != nil {
				return fmt.Errorf("move %d: %w", i+1, err)
			}
			fmt.Fprintf(os.Stderr, "  to %s: %.0f ms\n", to.Name, gap)
			gaps = append(gaps, gap)
		}
		b.emit(figure("move_gap_ms", slices.Max(gaps), "ms"), figure("move_gap_median_ms", median(gaps), "ms"))
		return nil
	})
}

// moved moves a VM that receives a stream, and returns the longest time without data in ms.
func (b *bench) moved(ctx context.Context, l *lab.Lab, vm *lab.VM, to *lab.Host, from, at ns.Space) (float64, error) {
	receive, err := b.tools().StartReady(ctx, at, "tcp", "receive", "--duration=60s")
	if err != nil {
		return 0, err
	}
	send, err := b.tools().Start(ctx, from, "tcp", "send", "10.0.1.11:5001", "--duration="+moveStream.String(), moveRate)
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(moveStream / 4):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := l.Move(ctx, vm, to); err != nil {
		return 0, err
	}
	var sent, received traffic.TCPResult
	if err := send.Wait(&sent); err != nil {
		return 0, err
	}
	if err := receive.Wait(&received); err != nil {
		return 0, err
	}
	if sent.Bytes != received.Bytes {
		return 0, fmt.Errorf("%d bytes sent, %d received", sent.Bytes, received.Bytes)
	}
	return received.Gap, nil
}
