package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// contenders are what VMs send that share the agent: cheap packets and dear ones.
var contenders = []struct {
	mode   traffic.Mode
	target string
}{
	{traffic.ModePorts, "10.0.2.66"},
	{traffic.ModeExpensive, "10.128.0.0/9"},
	{traffic.ModeSources, "10.0.2.66"}, // refused by port security: the cheapest
	{traffic.ModeARP, "10.0.2.66"},     // flooded: the dearest
}

const (
	// shareWindow is how long a sample lasts. One in which a port did not want twice what it got, because its sender had no CPU, does not count.
	shareWindow = 50 * time.Millisecond
	shareLeast  = 20 // windows that must count
	quietFor    = 150 * time.Millisecond
)

// fairness: jain is the index of fairness (Jain, Chiu, Hawe 1984) of the agent's processing time between VMs that send different things faster than they are
// served; share_back_ms how long one that stops keeps some of it; refuse_cpu what of a core the agent loses to 100,000 refused packets/s.
func fairness(ctx context.Context, b *bench) (err error) {
	a, err := viaductArena(ctx, b, len(contenders))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	la := a.(labArena)
	f := fair{b: b, arena: la, agent: debug.NewClient(la.Hosts[0].Socket())}
	if err := f.shares(ctx); err != nil {
		return err
	}
	if err := f.refusals(ctx); err != nil {
		return err
	}
	return a.balanced(ctx)
}

type fair struct {
	b     *bench
	arena labArena
	agent *debug.Client
	first uint32 // number of the next flow
}

// flood starts the i-th contender; rate 0: as fast as it can.
func (f *fair) flood(ctx context.Context, i, rate int) (*tool.Process, error) {
	s, err := f.arena.space(attacks.Rogue(i, false))
	if err != nil {
		return nil, err
	}
	c := contenders[i]
	p, err := f.b.tools().Start(ctx, s, "flood", "--mode="+string(c.mode), "--target="+c.target, fmt.Sprintf("--rate=%d", rate),
		"--duration=2m", fmt.Sprintf("--nice=%d", rogueNice), fmt.Sprintf("--first=%d", f.first))
	if err != nil {
		return nil, err
	}
	f.first += 1 << 27
	return p, awaitTraffic(ctx, s, 1000)
}

// use is what the contenders have had so far, by their number.
type use struct {
	at                         time.Time
	work                       []time.Duration
	admitted, refused, waiting []float64
}

func (f *fair) now(ctx context.Context) (u use, err error) {
	ports, err := f.agent.Ports(ctx)
	u.at = time.Now()
	for i := range contenders {
		k := slices.IndexFunc(ports, func(p debug.Port) bool { return p.Name == attacks.Rogue(i, false) })
		if k < 0 {
			return u, errors.Join(err, fmt.Errorf("the agent knows no port %s", attacks.Rogue(i, false)))
		}
		p := ports[k]
		u.work = append(u.work, time.Duration(p.Work))
		u.admitted = append(u.admitted, float64(p.Admitted))
		u.refused = append(u.refused, float64(p.Drops[drop.NoCredit.String()]))
		u.waiting = append(u.waiting, float64(p.InFlight))
	}
	return u, err
}

// shares measures jain and share_back_ms.
func (f *fair) shares(ctx context.Context) (err error) {
	var senders []*tool.Process
	defer func() { err = errors.Join(err, stopAll(senders)) }()
	for i := range contenders {
		p, err := f.flood(ctx, i, 0)
		if p != nil {
			senders = append(senders, p)
		}
		if err != nil {
			return err
		}
	}
	had, windows := make([]float64, len(contenders)), 0
	from, err := f.now(ctx)
	for end := time.Now().Add(f.b.duration); err == nil && time.Now().Before(end); {
		if err = sleep(ctx, shareWindow); err != nil {
			break
		}
		var to use
		if to, err = f.now(ctx); err != nil {
			break
		}
		saturated := true
		for i := range contenders {
			saturated = saturated && to.refused[i]-from.refused[i] > to.admitted[i]-from.admitted[i]
		}
		if saturated {
			windows++
			for i := range had {
				had[i] += (to.work[i] - from.work[i]).Seconds()
			}
		}
		from = to
	}
	if err != nil {
		return err
	}
	if windows < shareLeast {
		return fmt.Errorf("jain: all ports wanted twice what they got in %d windows of %v, want %d", windows, shareWindow, shareLeast)
	}
	fmt.Fprintf(os.Stderr, "  processing time of %d ports: %.3f s, in %d windows\n", len(had), had, windows)
	f.b.emit(figure("jain", jain(had), "index"))
	back, err := f.back(ctx, senders[0])
	if err != nil {
		return err
	}
	f.b.emit(figure("share_back_ms", float64(back.Microseconds())/1000, "ms"))
	return nil
}

// back is for how long a port that stops, the first one, still has processing time. The agent is never idle meanwhile, so that what it does not have is
// the others'.
func (f *fair) back(ctx context.Context, sender *tool.Process) (time.Duration, error) {
	if err := unix.Kill(sender.PID(), unix.SIGSTOP); err != nil {
		return 0, err
	}
	defer func() { _ = unix.Kill(sender.PID(), unix.SIGCONT) }() // that it may end
	stopped := time.Now()
	last, at := time.Duration(-1), stopped
	for time.Since(at) < quietFor {
		u, err := f.now(ctx)
		if err != nil {
			return 0, err
		}
		if u.work[0] != last || u.waiting[0] > 0 {
			if last, at = u.work[0], u.at; at.Sub(stopped) > 10*time.Second {
				return 0, errors.New("a port that has stopped is still served after 10 s")
			}
		}
	}
	return at.Sub(stopped), nil
}

// jain is (sum x)^2 / (n * sum x^2): 1 when all are equal, 1/n when one has all.
func jain(x []float64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += v
		squares += v * v
	}
	return sum * sum / (float64(len(x)) * squares)
}

// refuseRates are frames per second of one flood, both beyond what the agent serves: of what it takes at the second, the part that those served at the
// first cost is taken off.
var refuseRates = [2]int{300_000, 0}

// refusals measures refuse_cpu, in turns.
func (f *fair) refusals(ctx context.Context) error {
	var parts []float64
	for range f.b.rounds {
		var cpu, admitted, refused [2]float64
		for i, rate := range refuseRates {
			var err error
			if cpu[i], admitted[i], refused[i], err = f.refused(ctx, rate); err != nil {
				return err
			}
		}
		x, ok := refuseCPU(cpu, admitted, refused)
		fmt.Fprintf(os.Stderr, "  refused %.0f and %.0f/s, served %.0f and %.0f/s, agent %.3f and %.3f CPUs: %.2f %% of a core for 100,000 refused/s\n",
			refused[0], refused[1], admitted[0], admitted[1], cpu[0], cpu[1], 100*x)
		if ok {
			parts = append(parts, 100*x)
		}
	}
	if len(parts) == 0 {
		return errors.New("refuse_cpu: a sender as fast as it can be has no more refused than one at the lower rate")
	}
	f.b.emit(figure("refuse_cpu", median(parts), "% of a core for 100,000/s"))
	return nil
}

// refuseCPU is how much of a core 100,000 refused packets/s cost; false when too few more were refused the second time to tell.
func refuseCPU(cpu, admitted, refused [2]float64) (cores float64, ok bool) {
	k := admitted[1] / max(admitted[0], 1) // as many served as the second time would have cost, and been refused with
	more := refused[1] - k*refused[0]
	return (cpu[1] - k*cpu[0]) / max(more, 1) * 100_000, more > 100_000
}

// refused floods and tells, per second, the CPU time of the agent, and how many packets were served and refused.
func (f *fair) refused(ctx context.Context, rate int) (cpu, admitted, refused float64, err error) {
	p, err := f.flood(ctx, 0, rate)
	if p != nil {
		defer func() { err = errors.Join(err, p.Stop(nil)) }()
	}
	if err != nil {
		return 0, 0, 0, err
	}
	pid := f.arena.Hosts[0].PID
	from, err := f.now(ctx)
	c0, err1 := attacks.CPUTime(pid)
	if err := errors.Join(err, err1, sleep(ctx, max(f.b.duration/5, 500*time.Millisecond))); err != nil {
		return 0, 0, 0, err
	}
	c1, err := attacks.CPUTime(pid)
	to, err1 := f.now(ctx)
	if err := errors.Join(err, err1); err != nil {
		return 0, 0, 0, err
	}
	s := to.at.Sub(from.at).Seconds()
	return (c1 - c0).Seconds() / s, (to.admitted[0] - from.admitted[0]) / s, (to.refused[0] - from.refused[0]) / s, nil
}
