package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// firstPacket measures how long a packet takes from one VM to another, one way, while new flows of a third one come in at half of
// new_flows_per_s: the first packet of a flow, which misses, beside one of the same flow once it is established.
func firstPacket(ctx context.Context, b *bench) error {
	return b.withLab(ctx, b.flowConf, func(l *lab.Lab) error {
		vms, err := spaces(l, "alice", "bob", "mallory")
		if err != nil {
			return err
		}
		echo, err := b.tools().StartReady(ctx, vms[1], "echo")
		if err != nil {
			return err
		}
		defer func() { _ = echo.Stop(nil) }() // it has served its purpose, whatever it says
		// The first flows pay for what is made once, such as resolving the gateway.
		if _, err := b.probe(ctx, vms[0], time.Second); err != nil {
			return err
		}
		best, first, err := b.bestRate(ctx, l)
		if err != nil {
			return err
		}
		flood, err := b.tools().Start(ctx, vms[2], "flood", "--target=10.0.2.66", "--first="+fmt.Sprint(first), "--rate="+fmt.Sprint(int(best/2)),
			"--duration="+(b.duration+10*time.Second).String())
		if err != nil {
			return err
		}
		var r traffic.ProbeResult
		if err = awaitTraffic(ctx, vms[2], 1000); err == nil {
			target := fmt.Sprintf("%s:%d", bob, traffic.EchoPort)
			err = b.tools().Run(ctx, vms[0], &r, "probe", target, "--again", "--duration="+b.duration.String())
		}
		if err := joinStop(err, flood, nil); err != nil {
			return err
		}
		note(fmt.Sprintf("flood at %.0f flows/s", best/2), r)
		fmt.Fprintf(os.Stderr, "  one way: first packets p50 %d us, p99 %d us, later ones p50 %d us, p99 %d us\n", r.FirstP50, r.FirstP99, r.LaterP50, r.LaterP99)
		b.emit(figure("first_packet_us", float64(r.FirstP50-r.LaterP50), "us"), figure("first_packet_p99_us", float64(r.FirstP99-r.LaterP99), "us"),
			figure("first_packet_way_p50_us", float64(r.FirstP50), "us").against(float64(r.LaterP50)),
			figure("first_packet_way_p99_us", float64(r.FirstP99), "us").against(float64(r.LaterP99)))
		return nil
	})
}
