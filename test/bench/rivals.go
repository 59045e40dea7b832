package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// contests are the networks in which new flows are set up: bridge, router, bridge; the same with Open vSwitch made to set up each flow; and the suite's, with a
// stateful group at either end.
var contests = []struct {
	figure string
	rogue  string // who begins them, on either net; carol gets them
	rates  []int
	arenas map[string]func(context.Context, *bench) (arena, error)
}{
	{"new_flows_vs_ovn", "mallory", rates, map[string]func(context.Context, *bench) (arena, error){"viaduct": viaductPlain, "ovn": ovnPlain}},
	{"flow_setups_vs_ovn", "mallory", rates, map[string]func(context.Context, *bench) (arena, error){"viaduct": viaductPlain, "ovn": ovnExact}},
	{"stateful_flows_vs_ovn", attacks.Rogue(0, false), []int{40_000, 60_000, 80_000, 120_000, 160_000, 0}, map[string]func(context.Context, *bench) (arena, error){
		"viaduct": viaductGrouped,
		"ovn":     func(ctx context.Context, b *bench) (arena, error) { return ovnArena(ctx, b, 1) },
	}},
}

// oneWorker: what is compared is what one thread sets up; Open vSwitch's user space has one for ports like these.
const oneWorker = "agent.midolman.simulation_threads=1"

func viaductPlain(ctx context.Context, b *bench) (arena, error) {
	return arenaOf(ctx, b, examples.TwoSubnets, append([]string{oneWorker}, b.flowConf...))
}

func viaductGrouped(ctx context.Context, b *bench) (arena, error) {
	// The flood begins a million connections, which is more than one port may have.
	return arenaOf(ctx, b, attacks.Document(1), append([]string{oneWorker, "agent.conntrack.max_per_port=16777216"}, b.flowConf...))
}

// turns is how often each net has its turn; as with all rates of new flows, the best one counts.
const turns = 2

// flowsOfNets: new_flows_per_s of each of the nets, in the same networks, in turns.
func flowsOfNets(ctx context.Context, b *bench) error {
	nets := strings.Split(b.attack.nets, ",")
	for _, c := range contests {
		best := map[string]contest{}
		for range turns {
			for _, net := range nets {
				make := c.arenas[net]
				if make == nil {
					return fmt.Errorf("-nets %q: there are viaduct and ovn", net)
				}
				a, err := make(ctx, b)
				if err != nil {
					return fmt.Errorf("%s: %w", net, err)
				}
				got, err := b.contest(ctx, a, c.rogue, c.rates)
				if err := errors.Join(err, a.close()); err != nil {
					return fmt.Errorf("%s: %w", net, err)
				}
				fmt.Fprintf(os.Stderr, "  %s %s: %.0f flows/s, %.2f us of CPU and %.2f upcalls for each\n", c.figure, net, got.best, 1e6*got.cpu, got.upcalls)
				if x, ok := best[net]; ok {
					got.best, got.cpu = max(got.best, x.best), min(got.cpu, x.cpu)
				}
				best[net] = got
			}
		}
		own := best["viaduct"]
		f, u := figure(c.figure, own.best, "flows/s"), figure(c.figure+"_upcalls", own.upcalls, "upcalls/frame")
		cpu := figure(c.figure+"_cpu_us", 1e6*own.cpu, "us")
		if peer, ok := best["ovn"]; ok {
			f, cpu, u.Peer = f.against(peer.best), cpu.against(1e6*peer.cpu), &peer.upcalls
		}
		b.emit(f, cpu, u)
	}
	return nil
}

// contest is what one net has done.
type contest struct {
	best    float64 // delivered new flows per second
	cpu     float64 // seconds of CPU time that each of all that were delivered has taken
	upcalls float64 // misses that user space has decided on, for each frame that it, or its datapath, has taken from the sender
}

func (b *bench) contest(ctx context.Context, a arena, rogue string, offered []int) (c contest, err error) {
	alice, err := a.space("alice")
	if err != nil {
		return c, err
	}
	bob, err := a.space("bob")
	if err != nil {
		return c, err
	}
	echo, err := b.tools().StartReady(ctx, bob, "echo")
	if err != nil {
		return c, err
	}
	err = b.warm(ctx, alice)
	_ = echo.Stop(nil) // it has served its purpose, whatever it says
	if err != nil {
		return c, err
	}
	from, err := a.space(rogue)
	if err != nil {
		return c, err
	}
	to, err := a.space("carol")
	if err != nil {
		return c, err
	}
	counter := a.(interface {
		upcalls(ctx context.Context, rogue string) (upcallCount, error)
	})
	before, err := counter.upcalls(ctx, rogue)
	if err != nil {
		return c, err
	}
	then, err := workNow(to, a.processes()...)
	if err != nil {
		return c, err
	}
	if c.best, _, err = b.search(ctx, from, to, traffic.ModePorts, offered, 1<<30); err != nil {
		return c, err
	}
	now, err := workNow(to, a.processes()...)
	if err != nil {
		return c, err
	}
	c.cpu = now.since(then)
	after, err := counter.upcalls(ctx, rogue)
	c.upcalls = float64(after.upcalls-before.upcalls) / float64(max(after.frames-before.frames, 1))
	return c, err
}

// upcallCount counts frames that were taken from a sender, and misses.
type upcallCount struct{ frames, upcalls uint64 }

// upcalls of Viaduct are the rogue's admitted misses; frames that are refused are not taken.
func (a labArena) upcalls(ctx context.Context, rogue string) (n upcallCount, err error) {
	ports, err := debug.NewClient(a.Hosts[0].Socket()).Ports(ctx)
	if err != nil {
		return n, err
	}
	i := slices.IndexFunc(ports, func(p debug.Port) bool { return p.Name == rogue })
	if i < 0 {
		return n, fmt.Errorf("the agent knows no port %s", rogue)
	}
	p := ports[i]
	return upcallCount{frames: p.RxPackets - p.Drops[drop.NoCredit.String()], upcalls: p.Admitted}, nil
}

// upcalls are those of all ports: Open vSwitch does not tell them apart, and nobody else sends.
func (o *ovnNet) upcalls(ctx context.Context, _ string) (upcallCount, error) {
	text, err := o.output(ctx, "ovs-appctl", "-t", o.path("vswitchd.ctl"), "dpif-netdev/pmd-stats-show")
	if err != nil {
		return upcallCount{}, err
	}
	n, threads, err := pmdStats(text)
	if err == nil && len(threads) != 1 { // then it is not one worker's work
		err = fmt.Errorf("threads %v poll ports, want one", threads)
	}
	return n, err
}

// pmdStats reads what ovs-appctl dpif-netdev/pmd-stats-show says, and whose it is: threads that have packets to their name, or upcalls.
func pmdStats(text string) (n upcallCount, threads []string, err error) {
	name, found := "", false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			name, found = strings.TrimSuffix(strings.TrimSpace(line), ":"), true
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var sum *uint64
		switch key {
		case "packets received":
			sum = &n.frames
		case "miss with success upcall", "miss with failed upcall":
			sum = &n.upcalls
		default:
			continue
		}
		v, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return n, threads, fmt.Errorf("pmd-stats-show: %q: %w", line, err)
		}
		if *sum += v; v > 0 && !slices.Contains(threads, name) {
			threads = append(threads, name)
		}
	}
	if !found {
		return n, threads, fmt.Errorf("pmd-stats-show: %q", text)
	}
	return n, threads, nil
}
