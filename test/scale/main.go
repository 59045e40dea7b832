// Command scale measures Viaduct with many hosts on this machine and prints one JSON object per line and figure: a real server with
// its etcd in one process; in another the real agents of all hosts but one, each with its own connection to etcd, on datapaths in memory;
// and the last host's agent as it is installed, in the kernel of this machine. All are in a network namespace, which is gone, with what is in it, when
// the command ends. It needs root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Figure is one line of output.
type Figure struct {
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

// options say how big it is.
type options struct {
	shape
	rounds   int
	sorts    string
	starts   int
	pause    time.Duration
	settle   time.Duration
	binary   string
	profiles string
	dir      string // for what it writes
	out      io.Writer
}

func (o *options) emit(name string, value float64, unit string) {
	_ = json.NewEncoder(o.out).Encode(Figure{name, value, unit}) // a reader that has left ends us by SIGPIPE
}

// inside says that a process is in the namespace, and what it does there.
const (
	inside     = "VIADUCT_SCALE"
	asServer   = "server"
	asMeasurer = "measurer"
)

// The kernel ends children with the thread that has started them, and threads of workers end with them: the main one does not.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o := options{out: os.Stdout}
	f := flag.NewFlagSet("scale", flag.ExitOnError)
	f.IntVar(&o.hosts, "agents", 500, "hosts whose agents are measured together")
	f.IntVar(&o.ports, "ports", 20_000, "VMs of these hosts")
	f.IntVar(&o.networks, "networks", 100, "tenants, each with a router, bridges of 50 VMs and a security group")
	f.IntVar(&o.spread, "spread", 4, "VMs that a tenant has on one host")
	f.IntVar(&o.hosted, "hosted", 50, "VMs of the host whose agent is a process of its own")
	f.IntVar(&o.rounds, "rounds", 40, "changes of each sort")
	f.StringVar(&o.sorts, "sorts", "", "the sorts of changes, separated by commas: policy, group, port, address, route (default: all)")
	f.IntVar(&o.starts, "starts", 5, "starts of the agent that is a process of its own; the median counts")
	f.DurationVar(&o.pause, "pause", 5*time.Second, "between two of these starts")
	f.DurationVar(&o.settle, "settle", 15*time.Second, "until the memory of an agent is read: it has written to disk what it keeps by then, and collected its garbage")
	f.StringVar(&o.binary, "binary", "", "path of viaduct (default: it is built)")
	f.StringVar(&o.profiles, "profiles", "", "directory for CPU and heap profiles of the server and of the agents (default: none)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.rounds < 1 || o.starts < 1 {
		return errors.New("-rounds and -starts: at least one")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch os.Getenv(inside) {
	case asServer:
		return serve(ctx, o.profiles)
	case asMeasurer:
		return o.measure(ctx)
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes a network namespace and loads BPF programs")
	}
	return o.enter(ctx, args)
}

// enter runs this program once more, in namespaces of its own: interfaces and what is pinned go with them.
func (o *options) enter(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "viaduct-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "viaduct")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "./cmd/viaduct")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build viaduct: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, append(args, "-binary", o.binary)...)
	cmd.Env = append(os.Environ(), inside+"="+asMeasurer, "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// measure does it all. It runs in the namespace.
func (o *options) measure(ctx context.Context) (err error) {
	o.dir = os.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return fmt.Errorf("bpffs: %w", err)
	}
	if err := o.plug(); err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	say("starting the server")
	s, err := o.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	say("making the cloud: %d hosts, %d networks, %d VMs", o.hosts+1, o.networks, o.ports+o.hosted)
	c, err := o.build(ctx, s.api)
	if err != nil {
		return fmt.Errorf("cloud: %w", err)
	}
	say("starting %d agents", o.hosts)
	agents, err := o.startAgents(ctx, s, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agents.stop()) }()
	say("measuring an idle cloud")
	if err := o.idle(ctx, s); err != nil {
		return err
	}
	say("measuring changes")
	runtime.GC() // of this process, all agents' at once: hosts of their own collect each for itself
	if err := o.commits(ctx, s, c, agents); err != nil {
		return err
	}
	say("measuring the start of an agent")
	runtime.GC()
	if err := o.agentStart(ctx, s, c); err != nil {
		return fmt.Errorf("agent of %s: %w", lastHost, err)
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
