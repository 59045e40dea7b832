package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
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
		agent := debug.NewClient(l.Hosts[0].Socket())
		var before, after debug.Port
		if err = awaitTraffic(ctx, vms[2], 1000); err == nil {
			before, err = portNamed(ctx, agent, "alice")
		}
		if err == nil {
			target := fmt.Sprintf("%s:%d", bob, traffic.EchoPort)
			err = b.tools().Run(ctx, vms[0], &r, "probe", target, "--again", "--duration="+b.duration.String())
		}
		if err == nil {
			after, err = portNamed(ctx, agent, "alice")
		}
		if err := joinStop(err, flood, nil); err != nil {
			return err
		}
		if n := after.Admitted - before.Admitted; n > 0 {
			us := func(sum int64) float64 { return float64(sum) / float64(n) / 1000 }
			fmt.Fprintf(os.Stderr, "  the agent on its %d misses: %.0f us until their turn, %.0f until they were sent, of which %.0f are their own processing, on average\n",
				n, us(after.Waited-before.Waited), us(after.Setup-before.Setup), us(after.Work-before.Work))
		}
		note(fmt.Sprintf("flood at %.0f flows/s", best/2), r)
		fmt.Fprintf(os.Stderr, "  one way: first packets p50 %d us, p99 %d us, later ones p50 %d us, p99 %d us\n", r.FirstP50, r.FirstP99, r.LaterP50, r.LaterP99)
		b.emit(figure("first_packet_us", float64(r.FirstP50-r.LaterP50), "us"), figure("first_packet_p99_us", float64(r.FirstP99-r.LaterP99), "us"),
			figure("first_packet_way_p50_us", float64(r.FirstP50), "us").against(float64(r.LaterP50)),
			figure("first_packet_way_p99_us", float64(r.FirstP99), "us").against(float64(r.LaterP99)))
		return nil
	})
}

// portNamed is what the agent says of a port.
func portNamed(ctx context.Context, agent *debug.Client, name string) (debug.Port, error) {
	ports, err := agent.Ports(ctx)
	if err != nil {
		return debug.Port{}, err
	}
	i := slices.IndexFunc(ports, func(p debug.Port) bool { return p.Name == name })
	if i < 0 {
		return debug.Port{}, fmt.Errorf("the agent knows no port %s", name)
	}
	return ports[i], nil
}
