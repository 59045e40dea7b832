// Package server builds one control-plane node: the store, and the API over it.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/service"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
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
	// Listen are where the API is: unix:///PATH, or HOST:PORT, port 0 for a free one; beyond the loopback with TLS and
	// authentication alone.
	Listen []string
	TLS    pki.Files // of the API at HOST:PORT; CA is that of clients' certificates
	Tokens string    // file of tokens; with it, or with a CA, clients at HOST:PORT must say who they are
	// EtcdEndpoints are of an external cluster; when there are none, etcd is embedded.
	EtcdEndpoints []string
	DataDir       string // of the embedded etcd
	EtcdListen    string // URL at which the embedded etcd serves the agents; port 0 for a free one
	// EtcdTLS are for https: of the embedded etcd, which asks clients for certificates of CA, and shown to an etcd by this node.
	EtcdTLS pki.Files
	// EtcdUser is shown to an external etcd.
	EtcdUser etcd.User
	Version  string
	Log      *slog.Logger
	// Ready, when not nil, is called once, when everything is served.
	Ready func(Addresses)
}

// Addresses are where a node is reached.
type Addresses struct {
	API  []string // for client.New
	Etcd []string // endpoints, for agents
}

// Run serves until ctx ends, which is no error, or something breaks. Afterwards nothing
// of it is left but the data directory.
func Run(ctx context.Context, c Config) error {
	door, err := c.open()
	if err != nil {
		return err
	}
	defer door.close()
	endpoints, embedded, stop, err := c.etcd(ctx)
	if err != nil {
		return err
	}
	defer stop()
	secure, err := c.EtcdTLS.Client()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s, err := etcd.Open(etcd.Config{Endpoints: endpoints, TLS: secure, User: c.EtcdUser, Logger: c.Log})
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
	var mending sync.WaitGroup
	defer mending.Wait()
	mending.Go(func() { c.keepIndex(background, s) })
	defer func() { cancel(); <-begun }()
	return c.serve(ctx, door, s, Addresses{API: door.addresses(), Etcd: endpoints}, embedded)
}

// reindexEvery is how often the store's index is looked through: what is not in step was written by hand or by an earlier version.
const reindexEvery = 10 * time.Minute

// keepIndex makes the store's bundles, of a store that an earlier version has written, and sees to it that they stay in step, until ctx ends.
func (c *Config) keepIndex(ctx context.Context, s *etcd.Store) {
	for {
		next := reindexEvery
		switch n, err := s.Reindex(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			next = time.Second
			c.Log.Warn("the index of the store is not in step: agents may not see what was written past this version", "error", err, "retry_in", next)
		case n > 0:
			c.Log.Info("the index of the store is in step again", "mended", n)
		}
		select {
		case <-time.After(next):
		case <-ctx.Done():
			return
		}
	}
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
	e, err := etcd.Embed(ctx, etcd.EmbedConfig{Dir: c.DataDir, ClientURL: c.EtcdListen, TLS: c.EtcdTLS, Logger: c.Log})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("embedded store in %s at %s: %w", c.DataDir, c.EtcdListen, err)
	}
	return []string{e.Endpoint()}, e.Err(), e.Close, nil
}

func (c *Config) serve(ctx context.Context, d *door, s *etcd.Store, at Addresses, storeFailed <-chan error) error {
	watches, endWatches := context.WithCancel(context.Background())
	defer endWatches()
	srv := &http.Server{
		Handler:           native.New(native.Config{Context: watches, Store: s, Keys: s, Version: c.Version, Log: c.Log, Metrics: newRegistry(s, c.Version), Auth: d.who}),
		TLSConfig:         d.tls,
		BaseContext:       d.context,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, len(d.listeners))
	for _, l := range d.listeners {
		go func() { failed <- d.serve(srv, l) }()
	}

	c.Log.Info("ready", "api", at.API, "etcd", at.Etcd, "version", c.Version)
	service.Ready(c.Log, "serving the API at "+strings.Join(at.API, ", "))
	var watchdog sync.WaitGroup
	defer watchdog.Wait()
	watchdog.Go(func() { service.Watch(watches, c.Log, func(ctx context.Context) error { return c.healthy(ctx, s) }) })
	if c.Ready != nil {
		c.Ready(at)
	}

	var broken error
	select {
	case <-ctx.Done():
		c.Log.Info("stopping")
		service.Stopping(c.Log)
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

// healthy is nil unless this process is to blame: another start does not help against an external store that is away.
func (c *Config) healthy(ctx context.Context, s store.Store) error {
	if len(c.EtcdEndpoints) > 0 {
		return nil
	}
	_, err := s.Get(ctx, model.KindHost, uuid.Nil)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
