// Package server builds one control-plane node: the store, and the API over it.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// Defaults.
const (
	DefaultListen     = "127.0.0.1:8181"
	DefaultDataDir    = "/var/lib/viaduct/server"
	DefaultEtcdListen = "http://127.0.0.1:2379"
)

const (
	startTimeout    = 30 * time.Second // for the embedded store to serve
	shutdownTimeout = 5 * time.Second  // for requests to finish
)

// Config of a node.
type Config struct {
	Listen string // HOST:PORT on the loopback, port 0 for a free one, or unix:///PATH
	// EtcdEndpoints are of an external cluster; when there are none, etcd is embedded.
	EtcdEndpoints []string
	DataDir       string // of the embedded etcd
	EtcdListen    string // URL at which the embedded etcd serves the agents; port 0 for a free one
	Version       string
	Log           *slog.Logger
	// Ready, when not nil, is called once, when everything is served.
	Ready func(Addresses)
}

// Addresses are where a node is reached.
type Addresses struct {
	API  string   // for client.New
	Etcd []string // endpoints, for agents
}

// Run serves until ctx ends, which is no error, or something breaks. Afterwards nothing
// of it is left but the data directory.
func Run(ctx context.Context, c Config) error {
	listener, err := listen(c.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	endpoints, embedded, stop, err := c.etcd(ctx)
	if err != nil {
		return err
	}
	defer stop()
	s, err := etcd.Open(etcd.Config{Endpoints: endpoints, Logger: c.Log})
	if err != nil {
		return err
	}
	defer s.Close()
	background, cancel := context.WithCancel(ctx)
	begun, err := c.initConf(background, s)
	if err != nil {
		cancel()
		return err
	}
	defer func() { cancel(); <-begun }()
	return c.serve(ctx, listener, s, Addresses{API: apiAddress(listener), Etcd: endpoints}, embedded)
}

// etcd starts the embedded one, unless there are endpoints of another. The channel
// delivers an error that has ended it.
func (c *Config) etcd(ctx context.Context) (endpoints []string, failed <-chan error, stop func(), err error) {
	if len(c.EtcdEndpoints) > 0 {
		return c.EtcdEndpoints, nil, func() {}, nil
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("data directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	e, err := etcd.Embed(ctx, etcd.EmbedConfig{Dir: c.DataDir, ClientURL: c.EtcdListen, Logger: c.Log})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("embedded store in %s at %s: %w", c.DataDir, c.EtcdListen, err)
	}
	return []string{e.Endpoint()}, e.Err(), e.Close, nil
}

func (c *Config) serve(ctx context.Context, l net.Listener, s *etcd.Store, at Addresses, storeFailed <-chan error) error {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	watches, endWatches := context.WithCancel(context.Background())
	defer endWatches()
	srv := &http.Server{
		Handler:           native.New(native.Config{Context: watches, Store: s, Keys: s, Version: c.Version, Log: c.Log, Metrics: metrics}),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()

	c.Log.Info("ready", "api", at.API, "etcd", at.Etcd, "version", c.Version)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		c.Log.Warn("service manager not notified", "error", err)
	}
	if c.Ready != nil {
		c.Ready(at)
	}

	var broken error
	select {
	case <-ctx.Done():
		c.Log.Info("stopping")
	case broken = <-failed:
		broken = fmt.Errorf("API: %w", broken)
	case err := <-storeFailed:
		broken = fmt.Errorf("embedded store: %w", err)
	}
	endWatches()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(broken, srv.Close())
	}
	return broken
}

// listen opens the API's listener, on the loopback or on a unix socket.
func listen(addr string) (net.Listener, error) {
	path, ok := socketPath(addr)
	if !ok {
		if err := native.CheckListen(addr); err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("API: %w", err)
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	// Who may open it may change everything.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("API socket: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that a server which was killed left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("API socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("API socket: %s exists and is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("API socket: another server listens on %s", path)
	}
	return os.Remove(path)
}
