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
	senders    senders
	alice, bob ns.Space
	first      uint32 // number of the next flow of each rogue
	alone      used   // what switch and kernel take when there are only the victim's new flows
	stream     used   // and only the victim's stream
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
	u, err := r.probe(ctx, l, nil)
	if err != nil {
		return err
	}
	r.alone = u
	m, err := r.open(ctx)
	if err != nil {
		return err
	}
	p, u, err := r.flow(ctx, m, l, nil)
	l.TCP, l.TCPCPUs, l.TCPRatio, r.stream = p.gbit, p.cpus, 1, u
	l.SendersTCPRatio, l.SendersP99, l.SendersLate = 1, l.P99, l.Late
	return errors.Join(err, m.close())
}

// attack measures one attack: first the victim's new flows, then an established stream. Both are measured with others in the attack's place, too: with
// senders who send as much, but elsewhere; the stream also with burners, who take as much CPU time and send nothing.
func (r *rivals) attack(ctx context.Context, l *attackLine, a attacks.Attack) error {
	if a.Policy {
		if err := r.arena.inject(ctx); err != nil {
			return err
		}
	}
	if err := r.probes(ctx, l, a); err != nil {
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
	var rounds streamRounds
	for range r.b.rounds {
		if err = r.streams(ctx, l, m, a, &rounds); err != nil {
			break
		}
	}
	if err := errors.Join(err, m.close()); err != nil {
		return err
	}
	attacked := medianPace(rounds.attacked)
	l.TCP, l.TCPCPUs = attacked.gbit, attacked.cpus
	l.TCPRounds, l.BurnersTCPCPUs = to(rounds.attacked, rounds.burners), medianPace(rounds.burners).cpus
	l.SendersTCPRounds, l.SendersTCPCPUs = to(rounds.attacked, rounds.senders), medianPace(rounds.senders).cpus
	l.TCPRatio, l.SendersTCPRatio = median(l.TCPRounds), median(l.SendersTCPRounds)
	return nil
}

// probes are the victim's new flows under the attack, and beside senders.
func (r *rivals) probes(ctx context.Context, l *attackLine, a attacks.Attack) error {
	var u used
	err := r.under(ctx, r.arena.space, &l.Sent, l.Rogues, a, func(running *attacks.Running) (err error) {
		u, err = r.probe(ctx, l, running)
		return err
	})
	if err != nil {
		return err
	}
	beside := attackLine{}
	err = r.besideSenders(ctx, l, a, u.sw-r.alone.sw, func(running *attacks.Running) error {
		_, err := r.probe(ctx, &beside, running)
		return err
	})
	l.SendersP99, l.SendersLate, l.SendersLost = beside.P99, beside.Late, beside.Lost
	l.Disturbed = l.Disturbed || beside.Disturbed
	return err
}

// streamPace is how fast a stream is, in Gbit/s, and what its two ends take of the CPUs.
type streamPace struct{ gbit, cpus float64 }

// streamRounds are the stream's paces.
type streamRounds struct{ attacked, burners, senders []streamPace }

// to are the ratios of the rates of two, round by round.
func to(a, b []streamPace) (list []float64) {
	for i := range a {
		list = append(list, a[i].gbit/max(b[i].gbit, 1e-9))
	}
	return list
}

func medianPace(list []streamPace) streamPace {
	var gbit, cpus []float64
	for _, p := range list {
		gbit, cpus = append(gbit, p.gbit), append(cpus, p.cpus)
	}
	return streamPace{median(gbit), median(cpus)}
}

// streams is one round.
func (r *rivals) streams(ctx context.Context, l *attackLine, m *meter, a attacks.Attack, to *streamRounds) error {
	var attacked, senders streamPace
	var u used
	err := r.under(ctx, r.arena.space, &l.Sent, l.Rogues, a, func(running *attacks.Running) (err error) {
		attacked, u, err = r.flow(ctx, m, l, running)
		return err
	})
	if err != nil {
		return err
	}
	burners, err := r.besideBurners(ctx, m, l, u)
	if err != nil {
		return err
	}
	err = r.besideSenders(ctx, l, a, u.sw-r.stream.sw, func(running *attacks.Running) (err error) {
		senders, _, err = r.flow(ctx, m, l, running)
		return err
	})
	to.attacked, to.burners, to.senders = append(to.attacked, attacked), append(to.burners, burners), append(to.senders, senders)
	return err
}

// under runs f while VMs of the given network attack, and tells what they sent per second.
func (r *rivals) under(ctx context.Context, space func(vm string) (ns.Space, error), perSecond *float64, rogues int, a attacks.Attack, f func(*attacks.Running) error) error {
	running, err := a.Start(ctx, r.b.tools(), space, attacks.Force{
		Rogues: rogues, Rate: r.b.attack.rate, Duration: 4*r.b.duration + time.Minute, Nice: rogueNice, First: r.first,
	})
	if err != nil {
		return err
	}
	for i := 0; i < rogues && err == nil; i++ { // all of them attack
		var s ns.Space
		if s, err = space(attacks.Rogue(i, a.Free)); err == nil {
			err = awaitTraffic(ctx, s, 100)
		}
	}
	if err == nil {
		err = f(running)
	}
	sent, stopped := running.Stop()
	*perSecond = sent.PerSecond
	r.first += uint32(sent.Sent + sent.Refused) // no flow is sent twice
	return errors.Join(err, stopped)
}

// besideSenders runs f while senders send what attackers would, and a burner takes what the switch took for the attack, with a switch's priority.
func (r *rivals) besideSenders(ctx context.Context, l *attackLine, a attacks.Attack, sw float64, f func(*attacks.Running) error) error {
	return r.under(ctx, r.senders.space, &l.SendersSent, l.Rogues, a, func(running *attacks.Running) error {
		burner, err := r.burn(ctx, sw, switchNice)
		if err != nil {
			return err
		}
		return errors.Join(f(running), stopAll(burner))
	})
}

// burn starts a burner, if there is anything to burn.
func (r *rivals) burn(ctx context.Context, cpus float64, nice int) ([]*tool.Process, error) {
	if cpus <= 0 {
		return nil, nil
	}
	p, err := r.b.tools().StartReady(ctx, r.alice, "burn", fmt.Sprintf("--cpus=%.3f", cpus), fmt.Sprintf("--nice=%d", nice), "--duration=1m")
	if err != nil {
		return nil, err
	}
	return []*tool.Process{p}, nil
}

// probe opens new flows.
func (r *rivals) probe(ctx context.Context, l *attackLine, running *attacks.Running) (u used, err error) {
	var p traffic.ProbeResult
	counter, counts := r.arena.(interface {
		dropped(context.Context) (map[string]uint64, error)
	})
	var before map[string]uint64
	if counts {
		if before, err = counter.dropped(ctx); err != nil {
			return u, err
		}
	}
	u, err = r.during(l, running, func() (err error) {
		p, err = r.b.probeEvery(ctx, r.alice, probeEach, r.b.duration)
		return err
	})
	if err != nil {
		return u, err
	}
	if counts {
		if l.Dropped, err = counter.dropped(ctx); err != nil {
			return u, err
		}
		for reason, n := range before {
			if l.Dropped[reason] -= n; l.Dropped[reason] == 0 {
				delete(l.Dropped, reason)
			}
		}
	}
	l.Flows, l.Lost, l.P50, l.P99, l.P999, l.Late = p.Sent, p.Lost, p.P50, p.P99, p.P999, p.Late
	l.SwitchCPU, l.RogueCPU = u.sw, u.rogues
	for _, pid := range r.arena.processes() {
		n, err := attacks.Memory(pid)
		if err != nil {
			return u, err
		}
		l.RSS += float64(n) / (1 << 20)
	}
	return u, nil
}

// flow is the pace of a stream that is under way, and what was used meanwhile.
func (r *rivals) flow(ctx context.Context, m *meter, l *attackLine, running *attacks.Running) (p streamPace, u used, err error) {
	if err := sleep(ctx, settling); err != nil {
		return p, u, err
	}
	var from, to time.Time
	u, err = r.during(l, running, func() error {
		before := m.cpu()
		from = time.Now()
		if err := sleep(ctx, max(r.b.duration/8, 300*time.Millisecond)); err != nil {
			return err
		}
		to = time.Now()
		p.cpus = max(0, float64(m.cpu()-before)) / float64(to.Sub(from))
		return nil
	})
	if err != nil {
		return p, u, err
	}
	p.gbit = m.gbit(from, to)
	return p, u, nil
}

// besideBurners is flow while burners take what attackers and kernel threads took, as nice as the former, and what the switch
// took beyond what the stream costs it, with a switch's priority.
func (r *rivals) besideBurners(ctx context.Context, m *meter, l *attackLine, took used) (p streamPace, err error) {
	var burners []*tool.Process
	for _, x := range []struct {
		cpus float64
		nice int
	}{{took.rogues, rogueNice}, {took.kernel - r.stream.kernel, 0}, {took.sw - r.stream.sw, switchNice}} {
		b, err := r.burn(ctx, x.cpus, x.nice)
		if err != nil {
			return p, errors.Join(err, stopAll(burners))
		}
		burners = append(burners, b...)
	}
	p, _, err = r.flow(ctx, m, l, nil)
	return p, errors.Join(err, stopAll(burners))
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
