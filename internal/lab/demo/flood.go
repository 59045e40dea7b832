package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// window is how often the victim's latency is shown.
const window = 500 * time.Millisecond

// phases of the flood's story.
var phases = []string{"before", "during", "after"}

// flood has mallory send new flows as fast as she can while alice opens one to bob now and then.
func (s *story) flood(ctx context.Context, number int) (err error) {
	fmt.Fprintf(s.Out, "%d. Alice opens a new flow to Bob every %v. Mallory, on the same host, floods new flows at full speed.\n\n", number, s.Interval)
	vms := map[string]ns.Space{}
	for _, name := range []string{"alice", "bob", "mallory"} {
		if vms[name], err = s.lab.Space(name); err != nil {
			return err
		}
	}
	echo, err := s.tools.StartReady(ctx, vms["bob"], "echo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, echo.Stop(nil)) }()
	show := newPlot(s.Out, s.Plot, int(time.Duration(len(phases))*s.Phase/window))
	results := make([]traffic.ProbeResult, len(phases))
	var sent traffic.FloodResult
	for i, phase := range phases {
		stop := func() error { return nil }
		if phase == "during" {
			flood, err := s.tools.Start(ctx, vms["mallory"], "flood", "--target=10.0.2.66", "--duration="+(s.Phase+10*time.Second).String())
			if err != nil {
				return err
			}
			stop = func() error { return flood.Stop(&sent) }
		}
		results[i], err = s.probe(ctx, vms["alice"], func(r traffic.ProbeResult) { show.add(phase, r) })
		if err := errors.Join(err, stop()); err != nil {
			return fmt.Errorf("%s the flood: %w", phase, err)
		}
	}
	fmt.Fprintln(s.Out)
	for i, phase := range phases {
		r := results[i]
		fmt.Fprintf(s.Out, "   %-6s  %5d flows  %d lost  set-up p50 %-8s p99 %-8s max %s\n", phase, r.Sent, r.Lost, micros(r.P50), micros(r.P99), micros(r.Max))
	}
	fmt.Fprintf(s.Out, "   Mallory sent %d frames, %.0f a second. ", sent.Sent, sent.PerSecond)
	if err := s.account(ctx); err != nil {
		return err
	}
	if err := judge(results, sent); err != nil {
		return errors.Join(err, s.explain(ctx))
	}
	return nil
}

// explain is where an agent has lost packets, for who has to find out why.
func (s *story) explain(ctx context.Context) error {
	agent := debug.NewClient(s.agent.Socket())
	stats, err := agent.Stats(ctx)
	if err != nil {
		return err
	}
	ports, err := agent.Ports(ctx)
	if err != nil {
		return err
	}
	errs := []error{fmt.Errorf("agent: dropped %v; tokens: %d in flight of %d; last error %q", stats.Dropped, stats.InFlight, stats.Tokens, stats.LastError)}
	for _, p := range ports {
		errs = append(errs, fmt.Errorf("port %s: received %d, sent %d, admitted %d, dropped %v; credit %d, queued %d",
			p.Name, p.RxPackets, p.TxPackets, p.Admitted, p.Drops, p.Credit, p.Queued))
	}
	return errors.Join(errs...)
}

// judge is what the story promises of the flood: no loss, at any time, whatever it cost.
func judge(results []traffic.ProbeResult, sent traffic.FloodResult) error {
	var errs []error
	for i, r := range results {
		if r.Sent == 0 {
			errs = append(errs, fmt.Errorf("%s the flood Alice opened no flow", phases[i]))
		}
		if r.Lost > 0 {
			errs = append(errs, fmt.Errorf("%s the flood %d of %d of Alice's flows were lost", phases[i], r.Lost, r.Sent))
		}
	}
	if sent.Sent == 0 {
		errs = append(errs, errors.New("Mallory sent nothing: there was no flood"))
	}
	return errors.Join(errs...)
}

// account says what the agent saw of the flood.
func (s *story) account(ctx context.Context) error {
	ports, err := debug.NewClient(s.agent.Socket()).Ports(ctx)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.Name != "mallory" {
			continue
		}
		var dropped uint64
		for _, n := range p.Drops {
			dropped += n
		}
		fmt.Fprintf(s.Out, "%d of them were admitted, %d dropped at her port.\n", p.Admitted, dropped)
	}
	return nil
}

// probe measures for one phase, and hands over a summary of each window.
func (s *story) probe(ctx context.Context, alice ns.Space, each func(traffic.ProbeResult)) (whole traffic.ProbeResult, err error) {
	target := fmt.Sprintf("10.0.2.10:%d", traffic.EchoPort)
	p, err := s.tools.Start(ctx, alice, "probe", target, "--interval="+s.Interval.String(), "--duration="+s.Phase.String(), "--window="+window.String())
	if err != nil {
		return whole, err
	}
	// The last line is the whole: each one is shown when the next has come.
	for first := true; ; first = false {
		var next traffic.ProbeResult
		err := p.Next(&next)
		if errors.Is(err, io.EOF) {
			return whole, p.Wait(nil)
		}
		if err != nil {
			return whole, errors.Join(err, p.Stop(nil))
		}
		if !first {
			each(whole)
		}
		whole = next
	}
}

// micros writes microseconds for people.
func micros(us int64) string {
	if us < 1000 {
		return fmt.Sprintf("%d us", us)
	}
	return fmt.Sprintf("%.1f ms", float64(us)/1000)
}
