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
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// refuse: refuse_cpu is what 100,000 frames per second that are refused, since their port has no token left, take of the agent's CPU time. VMs have no tokens
// at all, so that the agent does nothing else; of a flood that is served in part the cost of what is served would have to be known to a thousandth. The agent has a CPU, and the sender another one that is never
// idle: where CPUs share a core, a sender that sleeps would make the agent faster.
func refuse(ctx context.Context, b *bench) error {
	return b.withLabOf(ctx, examples.TwoHosts, b.flowConf, func(l *lab.Lab) error {
		r := refusal{b: b, lab: l}
		return r.beside(ctx)
	})
}

type refusal struct {
	b      *bench
	lab    *lab.Lab
	rogue  ns.Space
	sender int // its CPU
}

// beside measures with sender and agent on CPUs of their own.
func (r *refusal) beside(ctx context.Context) (err error) {
	if r.rogue, err = r.lab.Space(flooder); err != nil {
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
	if err := pin(r.lab.Hosts[0].PID, cpus[0]); err != nil {
		return err
	}
	burner, err := r.b.tools().StartReady(ctx, r.rogue, "burn", "--cpus=1", "--nice=19", "--duration=10m")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll([]*tool.Process{burner})) }()
	if err := errors.Join(pin(burner.PID(), r.sender), yieldAlways(burner.PID())); err != nil {
		return err
	}
	return r.measure(ctx)
}

// flooder is the VM that floods.
const flooder = "alice"

// Of a flood, per second: this many frames are refused at least, and that many are served at most; else something else was measured.
const (
	leastRefused = 100_000
	mostServed   = 10
)

// noTokens leaves none to VMs: they draw on what has accumulated at the root, where there is nothing while the tunnel's bucket is full.
var noTokens = []string{
	"agent.datapath.vm_incoming_burst_capacity=0", "agent.datapath.vtep_incoming_burst_capacity=0",
	"agent.datapath.tunnel_incoming_burst_capacity=1", "agent.datapath.global_incoming_burst_capacity=1",
}

// served is what the agent has done, and what it has taken, per second.
type served struct{ cpu, admitted, refused float64 }

func (r *refusal) measure(ctx context.Context) (err error) {
	p, err := r.b.tools().Start(ctx, r.rogue, "flood", "--mode="+string(traffic.ModePorts), "--target=10.0.2.10", "--duration=10m", fmt.Sprintf("--nice=%d", rogueNice))
	if err != nil {
		return err
	}
	defer func() {
		_ = unix.Kill(p.PID(), unix.SIGCONT) // so that it hears
		err = errors.Join(err, stopAll([]*tool.Process{p}))
	}()
	// It has asked for its gateway's address when it sends, which takes tokens.
	if err := errors.Join(awaitTraffic(ctx, r.rogue, 1), pin(p.PID(), r.sender), unix.Kill(p.PID(), unix.SIGSTOP)); err != nil {
		return err
	}
	if _, err := r.lab.Configure(ctx, noTokens...); err != nil {
		return err
	}
	var costs []float64
	for i := range r.b.rounds {
		var got [2]served                         // without, with a flood
		for _, k := range []int{i % 2, 1 - i%2} { // what drifts is neither's
			if err := unix.Kill(p.PID(), []unix.Signal{unix.SIGSTOP, unix.SIGCONT}[k]); err != nil {
				return err
			}
			if got[k], err = r.watch(ctx, min(r.b.duration, 5*time.Second)); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "  %.0f refused/s, %.1f served/s: %.5f CPUs; without %.5f\n", got[1].refused, got[1].admitted, got[1].cpu, got[0].cpu)
		if got[1].refused < leastRefused || got[1].admitted > mostServed {
			return fmt.Errorf("of the flood %.0f frames/s are refused and %.0f served: want %d at least and %d at most", got[1].refused, got[1].admitted, leastRefused, mostServed)
		}
		costs = append(costs, 100*100_000*(got[1].cpu-got[0].cpu)/got[1].refused)
	}
	fmt.Fprintf(os.Stderr, "  rounds, in %% of a CPU for 100,000/s: %.3f\n", costs)
	r.b.emit(figure("refuse_cpu", median(costs), "% of a CPU"))
	return nil
}

// watch looks at the agent for a while, once what was before has settled.
func (r *refusal) watch(ctx context.Context, d time.Duration) (s served, err error) {
	if err := sleep(ctx, settling); err != nil {
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
	ports, err := debug.NewClient(r.lab.Hosts[0].Socket()).Ports(ctx)
	if err != nil {
		return s, err
	}
	i := slices.IndexFunc(ports, func(p debug.Port) bool { return p.Name == flooder })
	if i < 0 {
		return s, fmt.Errorf("the agent knows no port %s", flooder)
	}
	cpu, err := attacks.CPUTime(r.lab.Hosts[0].PID)
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
