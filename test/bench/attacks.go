package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// attackOptions are those of the attack suite.
type attackOptions struct {
	rogues  string // how many at once, separated by commas
	attacks string // names, separated by commas
	nets    string // viaduct, ovn, separated by commas
	rate    int    // frames per second, of all rogues together
}

// rogueNice is the rogues' niceness: two processors are shared by attackers, victims and the switch, and what is to be felt is the
// network, not that somebody computes beside.
const rogueNice = 19

// arena is an implementation of the network of the suite.
type arena interface {
	space(vm string) (ns.Space, error)
	processes() []int                 // that decide and switch
	inject(ctx context.Context) error // the rules of attacks.Policy
	balanced(ctx context.Context) error
	close() error
}

// attackLine is one attack on one network, a line of output.
type attackLine struct {
	Figure string  `json:"figure"` // "attack"
	Net    string  `json:"net"`
	Attack string  `json:"attack"` // "idle": none
	Rogues int     `json:"rogues"`
	Sent   float64 `json:"sent_per_s"`

	Flows int64 `json:"flows"` // that the victim began
	Lost  int64 `json:"lost"`
	P50   int64 `json:"p50_us"`
	P99   int64 `json:"p99_us"`
	P999  int64 `json:"p999_us"`
	Late  int64 `json:"late_us"` // what the machine has kept the prober waiting, at worst

	Dropped map[string]uint64 `json:"victims_dropped,omitempty"` // by their ports, by reason

	TCP       float64   `json:"tcp_gbit"`
	TCPRatio  float64   `json:"tcp_ratio"` // to that with burners in the attack's place; median of the rounds
	TCPRounds []float64 `json:"tcp_ratios"`
	TCPCPUs   float64   `json:"tcp_cpus"` // what the stream's two ends had

	BurnersTCPCPUs float64 `json:"burners_tcp_cpus"`

	// With senders in the attack's place, whose frames no switch sees.
	SendersSent      float64   `json:"senders_sent_per_s"`
	SendersLost      int64     `json:"senders_lost"`
	SendersP99       int64     `json:"senders_p99_us"`
	SendersLate      int64     `json:"senders_late_us"`
	SendersTCPRatio  float64   `json:"senders_tcp_ratio"` // median of the rounds
	SendersTCPRounds []float64 `json:"senders_tcp_ratios"`
	SendersTCPCPUs   float64   `json:"senders_tcp_cpus"`

	SwitchCPU float64 `json:"switch_cpus"` // while the victim probes
	RogueCPU  float64 `json:"rogue_cpus"`
	RSS       float64 `json:"rss_mib"`

	// Others is what the hypervisor and processes that have no part in this took of the CPUs in the worst phase. Beyond
	// quiet the line says little.
	Others    float64 `json:"other_cpus"`
	Disturbed bool    `json:"disturbed"`
}

// quiet is how many CPUs' time others may take while something is measured.
const quiet = 0.1

// attackSuite measures each attack with each number of rogues, on each network.
func attackSuite(ctx context.Context, b *bench) error {
	list, err := attacks.Choose(b.attack.attacks)
	if err != nil {
		return err
	}
	var errs []error
	for net := range strings.SplitSeq(b.attack.nets, ",") {
		make := arenas[net]
		if make == nil {
			return fmt.Errorf("-nets %q: there are viaduct and ovn", net)
		}
		var lines []attackLine
		for s := range strings.SplitSeq(b.attack.rogues, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > 32 {
				return fmt.Errorf("-rogues %q: want numbers from 1 to 32", s)
			}
			a, err := make(ctx, b, n)
			if err != nil {
				return fmt.Errorf("%s: %w", net, err)
			}
			got, err := b.attackAll(ctx, a, net, n, list)
			lines = append(lines, got...)
			if err := errors.Join(err, a.close()); err != nil {
				errs = append(errs, fmt.Errorf("%s, %d rogues: %w", net, n, err))
			}
		}
		b.emit(worst(net, lines)...)
	}
	return errors.Join(errs...)
}

var arenas = map[string]func(context.Context, *bench, int) (arena, error){"viaduct": viaductArena, "ovn": ovnArena}

// worst are the suite's figures of a network; those of Viaduct have no prefix.
func worst(net string, lines []attackLine) []Figure {
	var lost int64
	idle, ratio, tcp, sendersTCP := attackLine{}, 0.0, math.Inf(1), math.Inf(1)
	var p99, sendersP99 int64
	disturbed := false
	for _, l := range lines {
		disturbed = disturbed || l.Disturbed
		if l.Attack == "idle" {
			idle = l
			continue
		}
		lost = max(lost, l.Lost)
		p99 = max(p99, l.P99)
		ratio = max(ratio, float64(l.P99)/float64(max(idle.P99, 1)))
		tcp, sendersTCP = min(tcp, l.TCPRatio), min(sendersTCP, l.SendersTCPRatio)
		sendersP99 = max(sendersP99, l.SendersP99)
	}
	prefix := ""
	if net != "viaduct" {
		prefix = net + "_"
	}
	fs := []Figure{figure(prefix+"attack_loss", float64(lost), "flows"), figure(prefix+"attack_p99_us", float64(p99), "us"),
		figure(prefix+"attack_p99_ratio", ratio, "ratio"), figure(prefix+"attack_tcp_ratio", tcp, "ratio"),
		figure(prefix+"attack_senders_p99_us", float64(sendersP99), "us"), figure(prefix+"attack_senders_tcp_ratio", sendersTCP, "ratio")}
	for i := range fs {
		fs[i].Disturbed = disturbed
	}
	return fs
}

// attackAll is the suite on one arena.
func (b *bench) attackAll(ctx context.Context, a arena, net string, rogues int, list []attacks.Attack) (lines []attackLine, err error) {
	alice, err := a.space("alice")
	if err != nil {
		return nil, err
	}
	bob, err := a.space("bob")
	if err != nil {
		return nil, err
	}
	echo, err := b.tools().StartReady(ctx, bob, "echo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = echo.Stop(nil) }() // it has served its purpose, whatever it says
	if err := b.warm(ctx, alice); err != nil {
		return nil, err
	}
	others, err := newSenders(rogues)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, others.close()) }()
	r := rivals{b: b, arena: a, senders: others, alice: alice, bob: bob}
	idle := attackLine{Figure: "attack", Net: net, Attack: "idle"}
	if err := r.idle(ctx, &idle); err != nil {
		return nil, fmt.Errorf("idle: %w", err)
	}
	lines = append(lines, idle)
	told(idle)
	for i, x := range list {
		l := attackLine{Figure: "attack", Net: net, Attack: x.Name, Rogues: rogues}
		r.first = uint32(i) << 23
		if e := r.attack(ctx, &l, x); e != nil { // the others are measured all the same
			err = errors.Join(err, fmt.Errorf("%s: %w", x.Name, e))
			if ctx.Err() != nil {
				return lines, err
			}
			continue
		}
		lines = append(lines, l)
		told(l)
	}
	return lines, errors.Join(err, a.balanced(ctx))
}

func told(l attackLine) {
	_ = json.NewEncoder(os.Stdout).Encode(l) // a reader that has left ends us by SIGPIPE
	notes := ""
	if len(l.Dropped) > 0 {
		notes = fmt.Sprintf("; victims dropped %v", l.Dropped)
	}
	if l.Disturbed {
		notes += fmt.Sprintf("; DISTURBED: others took %.2f CPUs", l.Others)
	}
	fmt.Fprintf(os.Stderr, "  %-8s %d x %-13s %7.0f/s: %4d of %4d flows lost, p50 %d us, p99 %d us, p99.9 %d us (late %d us); TCP %.2f Gbit/s, %.2f with %.2f CPUs (%.2f); beside senders (%.0f/s) %d lost, p99 %d us (late %d us), TCP %.2f (%.2f); switch %.2f CPUs, rogues %.2f, %.0f MiB%s\n",
		l.Net, l.Rogues, l.Attack, l.Sent, l.Lost, l.Flows, l.P50, l.P99, l.P999, l.Late, l.TCP, l.TCPRatio, l.TCPCPUs, l.BurnersTCPCPUs, l.SendersSent, l.SendersLost, l.SendersP99, l.SendersLate, l.SendersTCPRatio, l.SendersTCPCPUs, l.SwitchCPU, l.RogueCPU, l.RSS, notes)
}

// warm returns when the victims reach each other: the first flows pay for what is made once.
func (b *bench) warm(ctx context.Context, alice ns.Space) error {
	for end := time.Now().Add(30 * time.Second); ; {
		r, err := b.probe(ctx, alice, 300*time.Millisecond)
		if err != nil {
			return err
		}
		if r.Sent > 0 && r.Lost == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the victims do not reach each other: %d of %d flows lost", r.Lost, r.Sent)
		}
	}
}
