package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// refuse: refuse_cpu is what 100,000 frames per second that are refused, since their port has no token left, take of the agent's CPU time. Two floods are
// compared, one of twice what is served and one as fast as the sender can. The agent has a CPU, and the sender another one that is never idle: where CPUs share a core, the smaller flood would
// leave the agent more of it.
func refuse(ctx context.Context, b *bench) (err error) {
	// What is served should be little, so it is dear: through groups of a hundred rules. The bound on connections is met soon, and from then on a packet costs what the one
	// before did.
	text, err := withGroups(examples.TwoSubnets)
	if err != nil {
		return err
	}
	a, err := arenaOf(ctx, b, text, b.flowConf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	r := refusal{b: b, arena: a.(labArena)}
	if r.rogue, err = a.space(flooder); err != nil {
		return err
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	var cpus []int
	for cpu := 0; len(cpus) < allowed.Count(); cpu++ {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) < 2 {
		return errors.New("needs two CPUs")
	}
	r.sender = cpus[len(cpus)-1]
	if err := pin(r.arena.Hosts[0].PID, cpus[0]); err != nil {
		return err
	}
	burner, err := b.tools().StartReady(ctx, r.rogue, "burn", "--cpus=1", "--nice=19", "--duration=10m")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll([]*tool.Process{burner})) }()
	if err := errors.Join(pin(burner.PID(), r.sender), yieldAlways(burner.PID())); err != nil {
		return err
	}
	return errors.Join(r.measure(ctx), a.balanced(ctx))
}

// flooder is the VM that floods.
const flooder = "mallory"

// leastMore is how many frames per second must be refused more under the larger flood.
const leastMore = 100_000

type refusal struct {
	b      *bench
	arena  labArena
	rogue  ns.Space
	sender int // its CPU
	first  uint32
}

// served is what the agent has done for a flood, and what it has taken, per second.
type served struct{ cpu, admitted, refused float64 }

// refusedCost is what a frame that is refused costs, in seconds: what the agent takes under the larger flood beyond what the packets that it serves cost it under the
// smaller one. It serves other numbers of them, since it is never idle under either.
func refusedCost(small, large served) float64 {
	return (large.cpu - small.cpu*large.admitted/small.admitted) / (large.refused - small.refused)
}

func (r *refusal) measure(ctx context.Context) error {
	if _, err := r.flood(ctx, 0, 3*time.Second); err != nil { // bounds are met, tables have their size
		return err
	}
	most, err := r.flood(ctx, 0, time.Second)
	if err != nil {
		return err
	}
	rate := int(2 * most.admitted)
	var costs []float64
	for i := range r.b.rounds {
		var got [2]served
		for _, k := range []int{i % 2, 1 - i%2} { // what drifts is neither's
			if got[k], err = r.flood(ctx, []int{rate, 0}[k], min(r.b.duration, 3*time.Second)); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "  %.0f served/s, %.0f refused/s: %.4f CPUs, %.3f us for one served\n", got[k].admitted, got[k].refused, got[k].cpu, 1e6*got[k].cpu/got[k].admitted)
		}
		if got[1].refused-got[0].refused < leastMore {
			return fmt.Errorf("%.0f frames/s are refused of one flood, %.0f of the other: too much alike", got[0].refused, got[1].refused)
		}
		costs = append(costs, 100*100_000*refusedCost(got[0], got[1]))
	}
	fmt.Fprintf(os.Stderr, "  rounds, in %% of a CPU for 100,000/s: %.2f\n", costs)
	r.b.emit(figure("refuse_cpu", median(costs), "% of a CPU"))
	return nil
}

// flood sends at a rate, 0: as fast as the sender can, and looks at the agent for a while.
func (r *refusal) flood(ctx context.Context, rate int, d time.Duration) (s served, err error) {
	p, err := r.b.tools().Start(ctx, r.rogue, "flood", "--mode="+string(traffic.ModePorts), "--target=10.0.2.66", fmt.Sprintf("--rate=%d", rate),
		"--duration=1m", fmt.Sprintf("--nice=%d", rogueNice), fmt.Sprintf("--first=%d", r.first))
	if err != nil {
		return s, err
	}
	r.first += 1 << 23
	defer func() { err = errors.Join(err, stopAll([]*tool.Process{p})) }()
	if err := errors.Join(awaitTraffic(ctx, r.rogue, 1000), pin(p.PID(), r.sender), sleep(ctx, settling)); err != nil {
		return s, err
	}
	from, err := r.now(ctx)
	if err != nil {
		return s, err
	}
	start := time.Now()
	if err := sleep(ctx, d); err != nil {
		return s, err
	}
	to, err := r.now(ctx)
	took := time.Since(start).Seconds()
	return served{(to.cpu - from.cpu) / took, (to.admitted - from.admitted) / took, (to.refused - from.refused) / took}, err
}

// now is what there was since the agent's start.
func (r *refusal) now(ctx context.Context) (s served, err error) {
	ports, err := debug.NewClient(r.arena.Hosts[0].Socket()).Ports(ctx)
	if err != nil {
		return s, err
	}
	i := slices.IndexFunc(ports, func(p debug.Port) bool { return p.Name == flooder })
	if i < 0 {
		return s, fmt.Errorf("the agent knows no port %s", flooder)
	}
	cpu, err := attacks.CPUTime(r.arena.Hosts[0].PID)
	return served{cpu.Seconds(), float64(ports[i].Admitted), float64(ports[i].Drops[drop.NoCredit.String()])}, err
}

// pin has all threads of a process run on one CPU.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return eachThread(pid, func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
}

// yieldAlways has a process run when nobody else wants the CPU (sched(7), SCHED_IDLE).
func yieldAlways(pid int) error {
	return eachThread(pid, func(tid int) error {
		return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	})
}

func eachThread(pid int, f func(tid int) error) error {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range list {
		tid, err := strconv.Atoi(e.Name())
		if err == nil {
			err = f(tid)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("thread %s of process %d: %w", e.Name(), pid, err)
		}
	}
	return nil
}
