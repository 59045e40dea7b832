package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

type options struct {
	name     string
	binaries []string // that take turns when the agent is replaced
	n        int
	seed     uint64
	log      io.Writer
}

// result is what became of the traffic.
type result struct {
	kills   int
	stream  traffic.StreamResult // the established flow, there and back
	tcp     [2]traffic.TCPResult // sent, received
	gaps    []time.Duration      // of each end of the agent: the longest that a new flow has waited
	opened  int64                // new flows
	refused int64                // of these, without an answer
	last    debug.Stats
}

type figure struct {
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

func (r *result) gap(q float64) float64 {
	if len(r.gaps) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r.gaps))
	return float64(s[min(int(q*float64(len(s))), len(s)-1)].Microseconds()) / 1000
}

func (r *result) figures() []figure {
	return []figure{
		{"kills", float64(r.kills), "ends of the agent"},
		{"kills_sent", float64(r.stream.Sent), "packets of the established flow, each answered by one"},
		{"kills_lost", float64(r.stream.Lost), "of these"},
		{"kills_gap_ms", r.gap(0.99), "ms"},
		{"kills_gap_p50_ms", r.gap(0.5), "ms"},
		{"kills_gap_max_ms", r.gap(1), "ms"},
		{"kills_new_flows", float64(r.opened), "flows"},
		{"kills_new_lost", float64(r.refused), "flows"},
	}
}

func (r *result) failed() error {
	var errs []error
	if r.stream.Lost != 0 || r.stream.Sent == 0 {
		errs = append(errs, fmt.Errorf("%d of %d packets of an established flow were lost", r.stream.Lost, r.stream.Sent))
	}
	if r.tcp[0].Bytes == 0 || r.tcp[0].Bytes != r.tcp[1].Bytes {
		errs = append(errs, fmt.Errorf("TCP: %d bytes sent, %d received", r.tcp[0].Bytes, r.tcp[1].Bytes))
	}
	if r.opened == 0 {
		errs = append(errs, errors.New("no new flow was opened"))
	}
	return errors.Join(errs...)
}

// run is one laboratory under fire.
type runner struct {
	options
	l     *lab.Lab
	h     *lab.Host
	tools tool.Runner
	rand  *rand.Rand
	api   *client.Client
	turn  int // of the binaries
	ends  map[string]int
	pids  map[string]int // of a process in each VM that has an established flow
}

const (
	alice      = "10.0.1.10"
	bob        = "10.0.2.10"
	patience   = 5 * time.Second // of a new flow: as long as the agent's for what has waited for it
	streamRate = 500             // datagrams per second
	tcpRate    = 200_000         // bytes per second
)

// kills does it all. The result is not nil when something was measured.
func kills(ctx context.Context, o options) (r *result, err error) {
	set, err := document.Parse(strings.NewReader(examples.TwoSubnets), "lab.yaml")
	if err != nil {
		return nil, err
	}
	l, err := lab.Up(ctx, lab.Options{Name: o.name, Binary: o.binaries[0]}, set)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	x := &runner{options: o, l: l, h: &l.Hosts[0], tools: tool.Runner{Command: []string{o.binaries[0], "lab", "tool"}}, rand: rand.New(rand.NewPCG(o.seed, 0)), ends: map[string]int{}}
	if x.api, err = client.New("unix://" + l.Server.Socket); err != nil {
		return nil, err
	}
	defer x.api.Close()
	return x.run(ctx)
}

func (x *runner) run(ctx context.Context) (r *result, err error) {
	var vms []ns.Space
	for _, name := range []string{"alice", "bob", "mallory"} {
		s, err := x.l.Space(name)
		if err != nil {
			return nil, err
		}
		vms = append(vms, s)
	}
	alices, bobs, mallory := vms[0], vms[1], vms[2]
	r = &result{}
	long := "--duration=" + (time.Duration(x.n)*10*time.Second + time.Minute).String()
	echo, err := x.tools.StartReady(ctx, bobs, "echo", long)
	if err != nil {
		return nil, err
	}
	defer func() { _ = echo.Stop(nil) }()
	receive, err := x.tools.StartReady(ctx, bobs, "tcp", "receive", long)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, receive.Wait(&r.tcp[1])) }()
	target := fmt.Sprintf("%s:%d", bob, traffic.EchoPort)
	// The first flows pay for what is made once; the stream's begins before anything ends.
	var probe traffic.ProbeResult
	if err := x.tools.Run(ctx, mallory, &probe, "probe", target, "--duration=200ms"); err != nil {
		return nil, err
	}
	send, err := x.tools.Start(ctx, alices, "tcp", "send", bob+":5001", fmt.Sprintf("--rate=%d", tcpRate), long)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, send.Stop(&r.tcp[0])) }()
	stream, err := x.tools.Start(ctx, alices, "stream", target, fmt.Sprintf("--rate=%d", streamRate), long)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stream.Stop(&r.stream)) }()
	x.pids = map[string]int{"alice": stream.PID(), "bob": echo.PID()}
	if err := x.established(ctx); err != nil {
		return nil, err
	}
	before, err := x.look(ctx)
	if err != nil {
		return nil, err
	}
	for r.kills < x.n && ctx.Err() == nil {
		p, err := x.tools.Start(ctx, mallory, "probe", target, "--interval=20ms", "--timeout="+patience.String(), "--duration=600ms")
		if err != nil {
			return r, err
		}
		time.Sleep(x.upTo(200 * time.Millisecond)) // the instant is the point
		what, err := x.end(ctx)
		if err != nil {
			return r, errors.Join(fmt.Errorf("end %d (%s, seed %d): %w", r.kills+1, what, x.seed, err), p.Stop(nil))
		}
		x.ends[what]++
		if err := p.Wait(&probe); err != nil {
			return r, err
		}
		r.kills++
		r.opened += probe.Sent
		r.refused += probe.Lost
		gap := time.Duration(probe.Max) * time.Microsecond
		if probe.Lost > 0 { // they have waited for as long as that, in vain
			gap = patience
		}
		r.gaps = append(r.gaps, gap)
		if probe.Lost > 0 || gap > 500*time.Millisecond {
			fmt.Fprintf(x.log, "end %d, %s: a new flow has waited for %s, %d of %d are lost\n", r.kills, what, gap, probe.Lost, probe.Sent)
		}
		now, err := x.look(ctx)
		if err != nil {
			return r, err
		}
		if lost := now.since(before); lost != "" {
			fmt.Fprintf(x.log, "end %d, %s: lost: %s\n", r.kills, what, lost)
		}
		before = now
		if r.kills%100 == 0 {
			fmt.Fprintf(x.log, "%d ends, %v, gap p50 %.0f ms, p99 %.0f ms\n", r.kills, x.ends, r.gap(0.5), r.gap(0.99))
		}
	}
	return r, ctx.Err()
}

// established waits until the kernel switches the flows that are to go on: of two connections, there and back. What the probe has opened does not
// count.
func (x *runner) established(ctx context.Context) error {
	agent := debug.NewClient(x.h.Socket())
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n := 0
		var failed error
		for _, port := range []string{"alice", "bob"} {
			flows, err := agent.Flows(ctx, port, 0)
			failed = errors.Join(failed, err)
			for i := range flows {
				if f := &flows[i]; strings.Contains(f.Key, alice) && strings.Contains(f.Key, bob) {
					n++
				}
			}
		}
		if failed == nil && n >= 4 {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the kernel switches %d of 4 flows", n), failed)
		}
	}
}

func (x *runner) upTo(d time.Duration) time.Duration { return time.Duration(x.rand.Int64N(int64(d))) }

// end ends the agent in one of many ways, and starts the next one.
func (x *runner) end(ctx context.Context) (what string, err error) {
	signal := syscall.SIGKILL
	switch p := x.rand.IntN(100); {
	case p < 35:
		what = "killed"
	case p < 60:
		what = "killed, and again in its start"
	case p < 70:
		what = "killed in a change of the configuration"
		err = x.during(ctx, func() error { return x.configure(ctx) })
	case p < 80:
		what = "killed in a change of the topology"
		err = x.during(ctx, func() error { return x.apply(ctx) })
	case p < 86:
		what, signal = "stopped", syscall.SIGTERM
	case p < 93:
		what, signal = "stopped, and again in its start", syscall.SIGTERM
	default:
		what = "replaced"
		x.turn++
	}
	if err != nil {
		return what, err
	}
	if err := x.signal(ctx, signal); err != nil {
		return what, err
	}
	x.l.Binary = x.binaries[x.turn%len(x.binaries)]
	if strings.HasSuffix(what, "in its start") {
		if _, err := x.l.LaunchAgent(x.h); err != nil {
			return what, err
		}
		time.Sleep(x.upTo(200 * time.Millisecond)) // as above
		if err := x.signal(ctx, signal); err != nil {
			return what, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return what, x.l.StartAgent(ctx, x.h)
}

// during begins something and returns before it is through, most of the time.
func (x *runner) during(ctx context.Context, change func() error) error {
	done := make(chan error, 1)
	go func() { done <- change() }()
	select {
	case err := <-done:
		return err
	case <-time.After(x.upTo(30 * time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *runner) configure(ctx context.Context) error {
	_, err := x.l.Configure(ctx, fmt.Sprintf("agent.datapath.vm_incoming_burst_capacity=%d", 24+x.turn%2*8), fmt.Sprintf("agent.flow.idle_timeout=%ds", 50+len(x.ends)))
	return err
}

// apply changes what the established flows go through: the bridge has another port.
func (x *runner) apply(ctx context.Context) error {
	doc := fmt.Sprintf("kind: port\nname: spare\nbridge: red\nmac: 02:00:00:00:03:01\naddresses: [10.0.2.%d]\n", 100+x.ends["killed"]%100)
	set, err := document.Parse(strings.NewReader(doc), "spare.yaml")
	if err != nil {
		return err
	}
	_, err = set.Apply(ctx, x.api)
	return err
}

// signal ends the agent and waits until it is gone.
func (x *runner) signal(ctx context.Context, s syscall.Signal) error {
	if err := syscall.Kill(x.h.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := syscall.Kill(x.h.PID, 0); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("process %d is still there after signal %s", x.h.PID, s)
		}
	}
}
