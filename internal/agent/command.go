package agent

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// DefaultRunDir is where the agent's socket and lock are.
const DefaultRunDir = "/run/viaduct"

// Command makes `viaduct agent`.
func Command() *cobra.Command {
	tokens := htb.DefaultConfig()
	var (
		host, runDir, name, level string
		endpoints                 []string
		workers, maxFlows         int
		cleanup                   bool
	)
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run this host's agent",
		Long: "Runs until SIGTERM or SIGINT; the datapath goes on forwarding without it, and the next agent adopts it.\n" +
			"Needs root and kernel 6.1 or later. --cleanup instead removes all that agents of this --name have left on the host.",
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&host, "host", hostname(), "the host's name in the topology")
	f.StringSliceVar(&endpoints, "etcd", []string{"http://127.0.0.1:2379"}, "endpoints of the store")
	f.StringVar(&runDir, "run-dir", DefaultRunDir, "directory of the socket and the lock")
	f.StringVar(&name, "name", "viaduct", "name of the datapath: its programs and maps are pinned under /sys/fs/bpf/viaduct/NAME")
	f.IntVar(&workers, "workers", max(1, runtime.NumCPU()/2), "packet workers")
	f.IntVar(&maxFlows, "max-flows", 200_000, "most flows in the datapath (agent.datapath.max_flow_count)")
	f.Int64Var(&tokens.Global, "global-burst", tokens.Global, "agent.datapath.global_incoming_burst_capacity")
	f.Int64Var(&tokens.VM, "vm-burst", tokens.VM, "agent.datapath.vm_incoming_burst_capacity")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&cleanup, "cleanup", false, "detach from all interfaces, remove programs, maps and pins, and exit")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
		if os.Geteuid() != 0 {
			return fmt.Errorf("viaduct agent needs root: it loads BPF programs")
		}
		if err := tokens.Validate(); err != nil {
			return err
		}
		if err := os.MkdirAll(runDir, 0o755); err != nil {
			return err
		}
		opts := ebpf.Options{Name: name, RunDir: runDir, MaxFlows: maxFlows, Workers: workers, Tokens: int(tokens.Global)}
		if cleanup {
			return ebpf.Cleanup(opts)
		}
		dp, err := ebpf.Open(opts)
		if err != nil {
			return err
		}
		st, err := etcd.Open(etcd.Config{Endpoints: endpoints, Logger: log})
		if err != nil {
			dp.Close()
			return err
		}
		defer st.Close()
		cfg := Config{Datapath: dp, Store: st, Host: host, RunDir: runDir, Tokens: tokens, Log: log, Ready: notifyReady}
		cfg.Worker.Flow.MaxFlows = maxFlows
		return Run(c.Context(), cfg)
	}
	return c
}

func notifyReady() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
}
