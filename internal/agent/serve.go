package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/service"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// DefaultRunDir is where the agent's socket and lock are.
const DefaultRunDir = "/run/viaduct"

// DefaultStateDir is where an agent keeps what the next one needs when it starts without the store.
const DefaultStateDir = "/var/lib/viaduct/agent"

// forgetState is how long the store's client keeps the whole network, against which it checks what the agent writes, in memory.
const forgetState = time.Minute

// Options are what a host is started with: what it takes to reach the store, and names. The rest is configured in the store (package conf).
type Options struct {
	Host         string   // the host's name in the topology
	Endpoints    []string // of the store
	EtcdTLS      pki.Files
	EtcdUser     etcd.User
	RunDir       string // directory of the socket and the lock
	StateDir     string // directory of what outlives the agent and the machine; empty: nothing does
	Name         string // of the datapath: pinned under /sys/fs/bpf/viaduct/NAME, or the local interface of Open vSwitch
	TunnelDevice string // name of the VXLAN device
	Log          *logs.Logs
	Version      string
	Metrics      Metrics
}

var errNotRoot = errors.New("only root can do this: it is about datapaths in the kernel and network interfaces")

// Serve runs the agent on this host's datapath until ctx ends, which is no error.
func Serve(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	log := o.Log.For("")
	if err := hurry(); err != nil {
		log.Warn("the agent runs at normal priority", "error", err)
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	secure, err := o.EtcdTLS.Client()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	st, err := etcd.Open(etcd.Config{Endpoints: o.Endpoints, TLS: secure, User: o.EtcdUser, Forget: forgetState, Logger: o.Log.For(logStore)})
	if err != nil {
		return err
	}
	defer st.Close()
	machine, err := live.This(ctx, o.Endpoints)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { service.Stopping(log) })
	return Run(ctx, Config{
		Store: st, Bundles: st, Keys: st, Shared: st, Host: o.Host, Machine: machine, RunDir: o.RunDir, StateDir: o.StateDir, TunnelDevice: o.TunnelDevice, Log: o.Log,
		Version: o.Version, Metrics: o.Metrics,
		Ready: func() { service.Ready(log, "serving host "+o.Host) },
		// Whoever waits for us at boot must not wait for a store that is away: what an earlier agent has installed works.
		Waiting: func() { service.Ready(log, "waiting for the store at "+strings.Join(o.Endpoints, ", ")) },
		Open: func(s *conf.Settings) (datapath.Datapath, error) {
			spareProcessors(workers(s))
			return openDatapath(&o, s)
		},
	})
}
