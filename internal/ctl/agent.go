package ctl

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

func newAgent() *cobra.Command {
	var o agent.Options
	var level string
	var cleanup bool
	c := &cobra.Command{
		Use: "agent",
		Example: "  viaduct agent --host h1 --etcd http://192.0.2.1:2379\n" +
			"  viaduct agent --cleanup",
		Short: "Run this host's agent",
		Long: "Runs until SIGTERM or SIGINT; the datapath goes on forwarding without it, and the next agent adopts it.\n" +
			"What is not said here is configured in the store: viaduct conf.\n" +
			"Needs root, and kernel 6.1 or later or the Open vSwitch kernel module. --cleanup instead removes all that agents of this --name have left on the host.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Host == "" {
				o.Host = hostname()
			}
			if cleanup {
				return agent.Cleanup(o)
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return exit.Usagef("--log-level %q: want debug, info, warn or error", level)
			}
			o.Version = Version()
			o.Log = logs.New(slog.NewTextHandler(c.ErrOrStderr(), nil), l)
			return agent.Serve(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Host, "host", "", "the host's name in the topology (default: the machine's name)")
	f.StringSliceVar(&o.Endpoints, "etcd", []string{"http://127.0.0.1:2379"}, "endpoints of the store")
	etcdFlags(f, &o.EtcdTLS, &o.EtcdUser)
	f.StringVar(&o.Metrics.Listen, "metrics-listen", "", "HOST:PORT for /metrics, /livez, /readyz and /version, which the socket has too; beyond the loopback with certificates of both sides alone")
	f.StringVar(&o.Metrics.TLS.Cert, "metrics-cert", "", "certificate with which --metrics-listen is https")
	f.StringVar(&o.Metrics.TLS.Key, "metrics-key", "", "its key")
	f.StringVar(&o.Metrics.TLS.CA, "metrics-client-ca", "", "authority whose certificates those must have who ask")
	f.StringVar(&o.RunDir, "run-dir", agent.DefaultRunDir, "directory of the socket and the lock")
	f.StringVar(&o.StateDir, "state-dir", agent.DefaultStateDir, "directory where the network is kept for a start without the store")
	f.StringVar(&o.Name, "name", "viaduct", "name of the datapath: pinned under /sys/fs/bpf/viaduct/NAME, or that of the Open vSwitch datapath")
	f.StringVar(&o.TunnelDevice, "tunnel-device", agent.DefaultTunnelDevice, "VXLAN device by which other hosts are reached; made when there is none")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error, until agent.loggers.root has been read from the store")
	f.BoolVar(&cleanup, "cleanup", false, "detach from all interfaces, remove programs, maps, pins and Open vSwitch datapath, and exit")
	localSettings(c, "cleanup")
	return c
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
}
