package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

const bob = "10.0.2.10"

// floods are the ways in which a rogue VM makes new flows, and where it sends them: to carol, who answers
// nothing, so that it is the network that is loaded and not the victim's peer.
var floods = []struct {
	mode   traffic.Mode
	target string
}{
	{traffic.ModePorts, "10.0.2.66"},
	{traffic.ModeDestinations, "10.128.0.0/9"},
	{traffic.ModeSYN, "10.0.2.66"},
}

// victim: a VM opens a new flow every 5 ms while another floods unique flows at the most
// a sender can do. What counts is the worst of the floods.
func victim(ctx context.Context, b *bench) error {
	return b.withLab(ctx, nil, func(l *lab.Lab) error {
		vms, err := spaces(l, "alice", "bob", "mallory")
		if err != nil {
			return err
		}
		alice, mallory := vms[0], vms[2]
		echo, err := b.tools().StartReady(ctx, vms[1], "echo")
		if err != nil {
			return err
		}
		defer func() { _ = echo.Stop(nil) }() // it has served its purpose, whatever it says
		// The first flows pay for what is made once, such as resolving the gateway.
		if _, err := b.probe(ctx, alice, 2*time.Second); err != nil {
			return err
		}
		idle, err := b.probe(ctx, alice, b.duration)
		if err != nil {
			return err
		}
		note("idle", idle)
		var lost int64 = idle.Lost
		var worst traffic.ProbeResult
		for i, f := range floods {
			during, sent, err := b.underFlood(ctx, alice, mallory, f.mode, f.target, uint32(i)<<30)
			if err != nil {
				return err
			}
			note(fmt.Sprintf("flood of %s at %.0f frames/s", f.mode, sent.PerSecond), during)
			lost += during.Lost
			if during.P99 >= worst.P99 {
				worst = during
			}
		}
		b.emit(figure("victim_loss", float64(lost), "flows"),
			figure("victim_p99_us", float64(worst.P99), "us").against(float64(idle.P99)),
			figure("victim_p99_ratio", float64(worst.P99)/float64(idle.P99), "ratio"))
		return nil
	})
}

func (b *bench) probe(ctx context.Context, s ns.Space, d time.Duration) (traffic.ProbeResult, error) {
	return b.probeEvery(ctx, s, 5*time.Millisecond, d)
}

func (b *bench) probeEvery(ctx context.Context, s ns.Space, interval, d time.Duration) (r traffic.ProbeResult, err error) {
	target := fmt.Sprintf("%s:%d", bob, traffic.EchoPort)
	err = b.tools().Run(ctx, s, &r, "probe", target, "--interval="+interval.String(), "--duration="+d.String())
	return r, err
}

// underFlood probes from alice while mallory floods: the flood begins before and ends after.
func (b *bench) underFlood(ctx context.Context, alice, mallory ns.Space, mode traffic.Mode, target string, first uint32) (traffic.ProbeResult, traffic.FloodResult, error) {
	var sent traffic.FloodResult
	flood, err := b.tools().Start(ctx, mallory, "flood", "--mode="+string(mode), "--target="+target,
		"--first="+fmt.Sprint(first), "--duration="+(b.duration+10*time.Second).String())
	if err != nil {
		return traffic.ProbeResult{}, sent, err
	}
	if err := awaitTraffic(ctx, mallory, 1000); err != nil {
		return traffic.ProbeResult{}, sent, joinStop(err, flood, nil)
	}
	r, err := b.probe(ctx, alice, b.duration)
	return r, sent, joinStop(err, flood, &sent)
}

func joinStop(err error, p *tool.Process, result any) error {
	stopped := p.Stop(result)
	if err != nil {
		return err
	}
	return stopped
}

func note(what string, r traffic.ProbeResult) {
	fmt.Fprintf(os.Stderr, "  %s: %d flows, %d lost, p50 %d us, p99 %d us, p99.9 %d us, max %d us; probe late %d us\n", what, r.Sent, r.Lost, r.P50, r.P99, r.P999, r.Max, r.Late)
}
