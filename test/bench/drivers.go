package main

import (
	"context"
	"fmt"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// offered are the rates at which drivers are compared, in frames per second: fewer than rates, since a guest is slow; 0: as fast as
// the sender can.
var offered = []int{1_000, 4_000, 0}

// pace is the probe's: slow enough that a victim in an emulated guest gets its tokens back between flows.
const pace = 25 * time.Millisecond

// setup is what one driver does with new flows.
type setup struct {
	best     float64 // delivered flows per second
	p50, p99 int64   // first round trip of a flow, two misses, in microseconds
	lost     int64
}

// drivers compares Open vSwitch's module with eBPF on the same kernel: the rate of new flows, and how long a miss takes.
func drivers(ctx context.Context, b *bench) error {
	ovs, err := b.setups(ctx, "ovs")
	if err != nil {
		return fmt.Errorf("ovs: %w", err)
	}
	ebpf, err := b.setups(ctx, "ebpf")
	if err != nil {
		return fmt.Errorf("ebpf: %w", err)
	}
	b.emit(figure("ovs_new_flows_per_s", ovs.best, "flows/s").against(ebpf.best),
		figure("ovs_first_round_trip_p50_us", float64(ovs.p50), "us").against(float64(ebpf.p50)),
		figure("ovs_first_round_trip_p99_us", float64(ovs.p99), "us").against(float64(ebpf.p99)),
		figure("ovs_lost", float64(ovs.lost), "flows"), figure("ebpf_lost", float64(ebpf.lost), "flows"))
	return nil
}

func (b *bench) setups(ctx context.Context, driver string) (s setup, err error) {
	err = b.withLab(ctx, []string{"agent.datapath.driver=" + driver}, func(l *lab.Lab) error {
		vms, err := spaces(l, "alice", "bob", "mallory", "carol")
		if err != nil {
			return err
		}
		echo, err := b.tools().StartReady(ctx, vms[1], "echo")
		if err != nil {
			return err
		}
		defer func() { _ = echo.Stop(nil) }() // it has served its purpose, whatever it says
		// The first flows pay for what is made once, such as resolving the gateway.
		if _, err := b.probeEvery(ctx, vms[0], pace, time.Second); err != nil {
			return err
		}
		r, err := b.probeEvery(ctx, vms[0], pace, b.duration)
		if err != nil {
			return err
		}
		note(driver, r)
		s.p50, s.p99, s.lost = r.P50, r.P99, r.Lost
		first := uint32(0)
		for _, rate := range offered {
			perSecond, sent, err := b.deliver(ctx, vms[2], vms[3], traffic.ModePorts, rate, first)
			if err != nil {
				return err
			}
			s.best = max(s.best, perSecond)
			first += uint32(sent.Sent + sent.Refused) // no flow is sent twice
		}
		return nil
	})
	return s, err
}
