// Command bench measures Viaduct on this machine and prints one JSON object per line and
// figure. It needs root, and ten minutes at most. What it makes is gone when it ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Figure is one line of output. Ratio is Value over Peer where it was measured against something.
type Figure struct {
	Figure string   `json:"figure"`
	Value  float64  `json:"value"`
	Unit   string   `json:"unit"`
	Peer   *float64 `json:"peer"`
	Ratio  *float64 `json:"ratio"`
	// Disturbed: the machine was not quiet, so this says little.
	Disturbed bool `json:"disturbed,omitempty"`
}

func figure(name string, value float64, unit string) Figure {
	return Figure{Figure: name, Value: value, Unit: unit}
}

func (f Figure) against(peer float64) Figure {
	ratio := f.Value / peer
	f.Peer, f.Ratio = &peer, &ratio
	return f
}

// bench is what every measurement gets.
type bench struct {
	binary   string
	duration time.Duration
	rounds   int
	flowConf []string // of the host that new_flows_per_s is measured on
	attack   attackOptions
	profiles string // directory
	emit     func(...Figure)
}

// measurement yields figures.
type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

var measurements = []measurement{
	{"sim", simulation},
	{"conns", connections},
	{"tcp", tcp},
	{"vxlan", vxlan},
	{"flow_bytes", flowBytes},
	{"flows", newFlows},
	{"stateful", stateful},
	{"first_packet", firstPacket},
	{"victim", victim},
	{"shares", shares},
	{"fairness", fairness},
	{"refuse", refuse},
	{"move", move},
	{"drivers", drivers},
	{"attacks", attackSuite},
	{"rivals", flowsOfNets},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var (
		b    = bench{emit: emit}
		only = flag.String("only", "", "measurements to make, separated by commas (default all but attacks and rivals, see make bench-attacks, and drivers, which needs openvswitch.ko): "+names())
		set  = flag.String("flow-conf", "", "KEY=VALUE, separated by blanks: configuration of the host that new flows are counted on")
	)
	flag.StringVar(&b.binary, "binary", "", "path of viaduct (default: it is built)")
	flag.DurationVar(&b.duration, "duration", 10*time.Second, "of one measurement")
	flag.IntVar(&b.rounds, "rounds", 5, "of what is measured in turns")
	flag.StringVar(&b.attack.rogues, "rogues", "1,8", "attacks: how many VMs attack at once, separated by commas")
	flag.StringVar(&b.attack.attacks, "attacks", "", "attacks: names, separated by commas (default all)")
	flag.StringVar(&b.attack.nets, "nets", "viaduct", "attacks: viaduct and ovn, separated by commas")
	flag.IntVar(&b.attack.rate, "rate", 500_000, "attacks: frames per second of all rogues together (0: as fast as they can)")
	draw := flag.String("draw", "", "attacks: make tables and the plot FILE of lines that were measured before, read from the input, and end")
	flag.Parse()
	if *draw != "" {
		return drawAttacks(os.Stdin, os.Stdout, *draw)
	}
	b.flowConf = strings.Fields(*set)
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces")
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if b.binary == "" {
		dir, err := os.MkdirTemp("", "viaduct-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		b.binary = filepath.Join(dir, "viaduct")
		build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/viaduct")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build viaduct: %w", err)
		}
	}
	undo, err := preferSoftirqs()
	if err != nil {
		return err
	}
	var errs []error
	defer func() { err = errors.Join(err, undo()) }()
	for _, m := range chosen {
		fmt.Fprintln(os.Stderr, "measuring", m.name)
		if err := m.run(ctx, &b); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

func choose(only string) ([]measurement, error) {
	if only == "" { // what any machine has
		return slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool {
			return slices.Contains([]string{"drivers", "attacks", "rivals"}, m.name)
		}), nil
	}
	var list []measurement
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(measurements, func(m measurement) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %q: there are %s", name, names())
		}
		list = append(list, measurements[i])
	}
	return list, nil
}

func names() string {
	var s []string
	for _, m := range measurements {
		s = append(s, m.name)
	}
	return strings.Join(s, ", ")
}

func emit(figures ...Figure) {
	for _, f := range figures {
		_ = json.NewEncoder(os.Stdout).Encode(f) // a reader that has left ends us by SIGPIPE
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}
