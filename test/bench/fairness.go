package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// contenders are what VMs send that share the agent: cheap packets and dear ones.
var contenders = []struct {
	mode   traffic.Mode
	target netip.Prefix
}{
	{traffic.ModePorts, netip.MustParsePrefix("10.0.2.66/32")},
	{traffic.ModeExpensive, netip.MustParsePrefix("10.128.0.0/9")},
	{traffic.ModeSYN, netip.MustParsePrefix("10.0.2.66/32")},
	{traffic.ModeARP, netip.MustParsePrefix("10.0.2.66/32")}, // flooded: the dearest
}

const (
	// shareWindow is how long a sample lasts. One in which a port had less than a fifth of what it sent refused, or nothing waiting at the beginning or the
	// end, because the sender had too little of the CPUs, does not count: who wants nothing has no share.
	shareWindow = 50 * time.Millisecond
	shareLeast  = 10 // windows that must count
	quietFor    = 150 * time.Millisecond
)

// fairness: jain is the index of fairness (Jain, Chiu, Hawe 1984) of the agent's processing time between VMs that send different things faster than they are
// served; share_back_ms how long one that stops keeps some of it.
func fairness(ctx context.Context, b *bench) (err error) {
	a, err := viaductArena(ctx, b, len(contenders))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	la := a.(labArena)
	f := fair{b: b, arena: la, agent: debug.NewClient(la.Hosts[0].Socket())}
	return errors.Join(f.shares(ctx), a.balanced(ctx))
}

type fair struct {
	b     *bench
	arena labArena
	agent *debug.Client
}

// floods are the contenders, from one thread: on two processors, four processes would want to be served one at a time.
func (f *fair) floods(ctx context.Context) (*traffic.Turns, error) {
	t := new(traffic.Turns)
	for i, c := range contenders {
		s, err := f.arena.space(attacks.Rogue(i, false))
		if err == nil {
			err = s.Do(func() error {
				flood := traffic.Flood{Interface: "eth0", Mode: c.mode, Target: c.target, First: uint32(i) << 27}
				if err := flood.Resolve(ctx); err != nil {
					return err
				}
				return t.Add(flood)
			})
		}
		if err != nil {
			t.Close()
			return nil, err
		}
	}
	return t, nil
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
	senders, err := f.floods(ctx)
	if err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = senders.Run(sending, f.b.duration+time.Minute, 0) })
	defer func() {
		stop()
		wg.Wait()
		senders.Close()
		err = errors.Join(err, failed)
	}()
	if err := sleep(ctx, 200*time.Millisecond); err != nil { // until all have no credit left
		return err
	}
	had, served, refused, windows := make([]float64, len(contenders)), make([]float64, len(contenders)), make([]float64, len(contenders)), 0
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
			saturated = saturated && 4*(to.refused[i]-from.refused[i]) > to.admitted[i]-from.admitted[i] && from.waiting[i] > 0 && to.waiting[i] > 0
		}
		if saturated {
			windows++
			for i := range had {
				had[i] += (to.work[i] - from.work[i]).Seconds()
				served[i] += to.admitted[i] - from.admitted[i]
				refused[i] += to.refused[i] - from.refused[i]
			}
		}
		from = to
	}
	if err != nil {
		return err
	}
	if windows < shareLeast {
		return fmt.Errorf("jain: all ports wanted more than they got in %d windows of %v, want %d", windows, shareWindow, shareLeast)
	}
	fmt.Fprintf(os.Stderr, "  processing time of %d ports: %.3f s, in %d windows; packets served %.0f, refused %.0f\n", len(had), had, windows, served, refused)
	f.b.emit(figure("jain", jain(had), "index"))
	back, err := f.back(ctx, senders)
	if err != nil {
		return err
	}
	f.b.emit(figure("share_back_ms", float64(back.Microseconds())/1000, "ms"))
	return nil
}

// back is for how long a port that stops, the first one, still has processing time. The agent is never idle meanwhile, so that what it does not have is
// the others'.
func (f *fair) back(ctx context.Context, senders *traffic.Turns) (time.Duration, error) {
	senders.Pause(0, true)
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
