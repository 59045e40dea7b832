package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// DefaultRunDir is where the agent's socket and lock are.
const DefaultRunDir = "/run/viaduct"

// Options are what a host is started with.
type Options struct {
	Host      string   // the host's name in the topology
	Endpoints []string // of the store
	RunDir    string   // directory of the socket and the lock
	Driver    Driver   // of the datapath; default Auto
	Name      string   // of the datapath: pinned under /sys/fs/bpf/viaduct/NAME, or the local interface of Open vSwitch
	Workers   int
	MaxFlows  int // in the datapath
	Tokens    htb.Config
	Tunnel    Tunnel
	Log       *slog.Logger
	Ready     func()
}

var errNotRoot = errors.New("only root can do this: it is about datapaths in the kernel and network interfaces")

// Serve runs the agent on this host's datapath until ctx ends, which is no error.
func Serve(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	if err := o.Tokens.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if err := hurry(o.Workers); err != nil {
		o.Log.Warn("the agent runs at normal priority", "error", err)
	}
	dp, err := openDatapath(&o)
	if err != nil {
		return err
	}
	st, err := etcd.Open(etcd.Config{Endpoints: o.Endpoints, Logger: o.Log})
	if err != nil {
		return errors.Join(err, dp.Close())
	}
	defer st.Close()
	cfg := Config{Datapath: dp, Store: st, Host: o.Host, RunDir: o.RunDir, Tokens: o.Tokens, Tunnel: o.Tunnel, Log: o.Log, Ready: o.Ready}
	cfg.Worker.Flow.MaxFlows = o.MaxFlows
	return Run(ctx, cfg)
}
