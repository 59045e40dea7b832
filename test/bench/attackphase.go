package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// rivals are the victims and who attacks them.
type rivals struct {
	b          *bench
	arena      arena
	alice, bob ns.Space
	first      uint32 // number of the next flow of each rogue
	stream     used   // what switch and kernel take when there is only the victim's stream
}

// used is what was used of the CPUs in a phase, in CPUs.
type used struct {
	sw, rogues float64
	kernel     float64 // kernel threads
	others     float64 // who has no part in this, and the hypervisor
}

// probeEach is the time between the victim's new flows: enough of them for a p99 that is not made by a few.
const probeEach = 2 * time.Millisecond

// settling is how long a stream has to get used to what is new.
const settling = 200 * time.Millisecond

// idle measures what the victims have for themselves.
func (r *rivals) idle(ctx context.Context, l *attackLine) error {
	if err := r.probe(ctx, l, nil); err != nil {
		return err
	}
	m, err := r.open(ctx)
	if err != nil {
		return err
	}
	g, u, err := r.flow(ctx, m, l, nil)
	l.TCP, l.TCPBurner, l.TCPRatio, r.stream = g, g, 1, u
	return errors.Join(err, m.close())
}

// attack measures one attack: first the victim's new flows, then an established stream, which attackers and burners that take as much
// CPU time as attackers and switch took try to hold up in turns.
func (r *rivals) attack(ctx context.Context, l *attackLine, a attacks.Attack) error {
	if a.Policy {
		if err := r.arena.inject(ctx); err != nil {
			return err
		}
	}
	err := r.under(ctx, l, a, func(running *attacks.Running) error { return r.probe(ctx, l, running) })
	if err != nil {
		return err
	}
	m, err := r.open(ctx)
	if errors.Is(err, errNoStream) { // what the attack has left behind has the victims no longer talk: 0, and no error
		fmt.Fprintln(os.Stderr, " ", err)
		return nil
	}
	if err != nil {
		return err
	}
	var attacked, burnt []float64
	for range r.b.rounds {
		var g, beside float64
		var u used
		err = r.under(ctx, l, a, func(running *attacks.Running) (err error) {
			g, u, err = r.flow(ctx, m, l, running)
			return err
		})
		if err == nil {
			beside, err = r.besideBurners(ctx, m, l, u)
		}
		if err != nil {
			break
		}
		attacked, burnt = append(attacked, g), append(burnt, beside)
		l.TCPRounds = append(l.TCPRounds, g/max(beside, 1e-9))
	}
	if err := errors.Join(err, m.close()); err != nil {
		return err
	}
	l.TCP, l.TCPBurner, l.TCPRatio = median(attacked), median(burnt), median(l.TCPRounds)
	return nil
}

// under runs f while an attack is under way.
func (r *rivals) under(ctx context.Context, l *attackLine, a attacks.Attack, f func(*attacks.Running) error) error {
	running, err := a.Start(ctx, r.b.tools(), r.arena.space, attacks.Force{
		Rogues: l.Rogues, Rate: r.b.attack.rate, Duration: 4*r.b.duration + time.Minute, Nice: rogueNice, First: r.first,
	})
	if err != nil {
		return err
	}
	for i := 0; i < l.Rogues && err == nil; i++ { // all of them attack
		var s ns.Space
		if s, err = r.arena.space(attacks.Rogue(i, a.Free)); err == nil {
			err = awaitTraffic(ctx, s, 100)
		}
	}
	if err == nil {
		err = f(running)
	}
	sent, stopped := running.Stop()
	l.Sent = sent.PerSecond
	r.first += uint32(sent.Sent + sent.Refused) // no flow is sent twice
	return errors.Join(err, stopped)
}

// probe opens new flows.
func (r *rivals) probe(ctx context.Context, l *attackLine, running *attacks.Running) error {
	var p traffic.ProbeResult
	u, err := r.during(l, running, func() (err error) {
		p, err = r.b.probeEvery(ctx, r.alice, probeEach, r.b.duration)
		return err
	})
	if err != nil {
		return err
	}
	l.Flows, l.Lost, l.P50, l.P99, l.P999, l.Late = p.Sent, p.Lost, p.P50, p.P99, p.P999, p.Late
	l.SwitchCPU, l.RogueCPU = u.sw, u.rogues
	for _, pid := range r.arena.processes() {
		n, err := attacks.Memory(pid)
		if err != nil {
			return err
		}
		l.RSS += float64(n) / (1 << 20)
	}
	return nil
}

// flow is the rate of a stream that is under way, in Gbit/s, and what was used meanwhile.
func (r *rivals) flow(ctx context.Context, m *meter, l *attackLine, running *attacks.Running) (gbit float64, u used, err error) {
	if err := sleep(ctx, settling); err != nil {
		return 0, u, err
	}
	var from, to time.Time
	u, err = r.during(l, running, func() error {
		from = time.Now()
		err := sleep(ctx, max(r.b.duration/8, 300*time.Millisecond))
		to = time.Now()
		return err
	})
	return m.gbit(from, to), u, err
}

// besideBurners is flow while burners take what attackers and kernel threads took, as nice as the former, and what the switch
// took beyond what the stream costs it, with a switch's priority.
func (r *rivals) besideBurners(ctx context.Context, m *meter, l *attackLine, took used) (gbit float64, err error) {
	var burners []*tool.Process
	for _, x := range []struct {
		cpus float64
		nice int
	}{{took.rogues, rogueNice}, {took.kernel - r.stream.kernel, 0}, {took.sw - r.stream.sw, -10}} {
		if x.cpus <= 0 {
			continue
		}
		p, err := r.b.tools().StartReady(ctx, r.alice, "burn", fmt.Sprintf("--cpus=%.3f", x.cpus), fmt.Sprintf("--nice=%d", x.nice), "--duration=1m")
		if err != nil {
			return 0, errors.Join(err, stopAll(burners))
		}
		burners = append(burners, p)
	}
	gbit, _, err = r.flow(ctx, m, l, nil)
	return gbit, errors.Join(err, stopAll(burners))
}

func stopAll(list []*tool.Process) (err error) {
	for _, p := range list {
		p.Interrupt()
	}
	for _, p := range list {
		err = errors.Join(err, p.Wait(nil))
	}
	return err
}

// during runs f and tells what was used of the machine meanwhile. A phase in which others had more than a little of it marks the line.
func (r *rivals) during(l *attackLine, running *attacks.Running, f func() error) (u used, err error) {
	times := func() (sw, rogues time.Duration, m attacks.Usage, err error) {
		if running != nil {
			if rogues, err = running.CPU(); err != nil {
				return sw, rogues, m, err
			}
		}
		for _, pid := range r.arena.processes() {
			d, err := attacks.CPUTime(pid)
			if err != nil {
				return sw, rogues, m, err
			}
			sw += d
		}
		m, err = attacks.UsageNow()
		return sw, rogues, m, err
	}
	s0, r0, m0, err := times()
	if err != nil {
		return u, err
	}
	err = f()
	s1, r1, m1, err1 := times()
	if err := errors.Join(err, err1); err != nil {
		return u, err
	}
	took := float64(m1.At.Sub(m0.At))
	_, kernel, others, stolen := m1.Since(m0)
	u = used{sw: float64(s1-s0) / took, rogues: float64(r1-r0) / took, kernel: kernel, others: others + stolen}
	l.Others = max(l.Others, u.others)
	l.Disturbed = l.Disturbed || u.others > quiet
	return u, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
