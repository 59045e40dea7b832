package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// rates that are offered, in frames per second; 0: as fast as the sender can. Beyond what
// the agent sustains, sender and agent compete for the same processors, so the best of them counts.
var rates = []int{80_000, 120_000, 160_000, 200_000, 250_000, 300_000, 0}

// newFlows: how many frames, each of a flow of its own, arrive behind bridge, router and
// bridge per second. Each one missed and was simulated, installed and sent on.
func newFlows(ctx context.Context, b *bench) error {
	return b.withLab(ctx, b.flowConf, func(l *lab.Lab) error {
		carol, err := l.Space("carol")
		if err != nil {
			return err
		}
		before, err := workNow(carol, l.Hosts[0].PID)
		if err != nil {
			return err
		}
		best, _, err := b.bestRate(ctx, l)
		if err != nil {
			return err
		}
		after, err := workNow(carol, l.Hosts[0].PID)
		if err != nil {
			return err
		}
		b.emit(figure("new_flows_per_s", best, "flows/s"), figure("new_flow_cpu_us", 1e6*after.since(before), "us"))
		return nil
	})
}

// work is what has been delivered, and the CPU time that it took those who decide and switch. Other work on the machine disturbs it less than what is
// done in a second.
type work struct {
	frames uint64
	cpu    time.Duration
}

func workNow(receiver ns.Space, pids ...int) (w work, err error) {
	if w.frames, _, err = counters(receiver); err != nil {
		return w, err
	}
	for _, pid := range pids {
		d, err := attacks.CPUTime(pid)
		if err != nil {
			return w, err
		}
		w.cpu += d
	}
	return w, nil
}

// since is how many seconds of CPU time each frame has taken since then.
func (w work) since(then work) float64 {
	return (w.cpu - then.cpu).Seconds() / float64(max(w.frames-then.frames, 1))
}

// bestRate is the best rate of new flows from mallory to carol, and the number of the first flow that was not sent.
func (b *bench) bestRate(ctx context.Context, l *lab.Lab) (best float64, first uint32, err error) {
	vms, err := spaces(l, "mallory", "carol")
	if err != nil {
		return 0, 0, err
	}
	return b.search(ctx, vms[0], vms[1], traffic.ModePorts, rates, 0)
}

// search is the best rate of new flows from one VM to another, or of answers, of those that are delivered when the list's are offered, and the number of the first flow
// that was not sent.
func (b *bench) search(ctx context.Context, from, to ns.Space, mode traffic.Mode, offered []int, first uint32) (best float64, next uint32, err error) {
	for _, rate := range offered {
		perSecond, sent, err := b.deliver(ctx, from, to, mode, rate, first)
		if err != nil {
			return 0, 0, err
		}
		fmt.Fprintf(os.Stderr, "  offered %.0f/s, delivered %.0f/s\n", sent.PerSecond, perSecond)
		best = max(best, perSecond)
		first += uint32(sent.Sent + sent.Refused) // no flow is sent twice
	}
	return best, first, nil
}

// deliver has a VM flood carol, or bob with SYN, who answers, and is what another one, or the same, receives per second: the frames, or the answers
// to them.
func (b *bench) deliver(ctx context.Context, from, to ns.Space, mode traffic.Mode, rate int, first uint32) (perSecond float64, sent traffic.FloodResult, err error) {
	before, _, err := counters(to)
	if err != nil {
		return 0, sent, err
	}
	target := "10.0.2.66"
	if mode == traffic.ModeSYN {
		target = bob
	}
	duration := min(b.duration, 3*time.Second)
	if err := b.tools().Run(ctx, from, &sent, "flood", "--mode="+string(mode), "--target="+target, "--rate="+fmt.Sprint(rate),
		"--first="+fmt.Sprint(first), "--duration="+duration.String()); err != nil {
		return 0, sent, err
	}
	after, _, err := counters(to)
	if err != nil {
		return 0, sent, err
	}
	return float64(after-before) / sent.Seconds, sent, nil
}
