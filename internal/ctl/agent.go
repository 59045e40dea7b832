package ctl

import (
	"log/slog"
	"os"
	"runtime"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

func newAgent() *cobra.Command {
	o := agent.Options{Tokens: htb.DefaultConfig()}
	var level, driver string
	var cleanup bool
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run this host's agent",
		Long: "Runs until SIGTERM or SIGINT; the datapath goes on forwarding without it, and the next agent adopts it.\n" +
			"Needs root, and kernel 6.1 or later or the Open vSwitch kernel module. --cleanup instead removes all that agents of this --name have left on the host.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if cleanup {
				return agent.Cleanup(o)
			}
			o.Driver = agent.Driver(driver)
			if err := o.Driver.Validate(); err != nil {
				return exit.Usagef("--driver: %v", err)
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return exit.Usagef("--log-level %q: want debug, info, warn or error", level)
			}
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			o.Ready = func() {
				if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
					o.Log.Warn("service manager not notified", "error", err)
				}
			}
			return agent.Serve(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Host, "host", hostname(), "the host's name in the topology")
	f.StringSliceVar(&o.Endpoints, "etcd", []string{"http://127.0.0.1:2379"}, "endpoints of the store")
	f.StringVar(&o.RunDir, "run-dir", agent.DefaultRunDir, "directory of the socket and the lock")
	f.StringVar(&driver, "driver", string(agent.Auto), "datapath: ebpf, ovs (the Open vSwitch kernel module) or auto: what is in use here, else eBPF, else ovs (agent.datapath.driver)")
	f.StringVar(&o.Name, "name", "viaduct", "name of the datapath: pinned under /sys/fs/bpf/viaduct/NAME, or that of the Open vSwitch datapath")
	f.IntVar(&o.Workers, "workers", max(1, runtime.NumCPU()/2), "packet workers")
	f.IntVar(&o.MaxFlows, "max-flows", 200_000, "most flows in the datapath (agent.datapath.max_flow_count)")
	f.Int64Var(&o.Tokens.Global, "global-burst", o.Tokens.Global, "tokens in the system (agent.datapath.global_incoming_burst_capacity)")
	f.Int64Var(&o.Tokens.VM, "vm-burst", o.Tokens.VM, "tokens of each VM's port (agent.datapath.vm_incoming_burst_capacity)")
	f.StringVar(&o.Tunnel.Device, "tunnel-device", "viaduct-vxlan", "VXLAN device by which other hosts are reached; made when there is none")
	f.IntVar(&o.Tunnel.Port, "tunnel-port", 4789, "UDP port of VXLAN, the same on all hosts")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&cleanup, "cleanup", false, "detach from all interfaces, remove programs, maps, pins and Open vSwitch datapath, and exit")
	return c
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
}
