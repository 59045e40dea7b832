package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/viaduct-net/viaduct/internal/pki"
)

// EmbedConfig is for a server in this process. Only Dir must be given.
type EmbedConfig struct {
	Dir string // data directory; made when missing
	// ClientURL is where clients reach it, default http://127.0.0.1:2379. Port 0: one that is free.
	ClientURL string
	TLS       pki.Files    // for an https ClientURL: clients must show a certificate of CA
	Logger    *slog.Logger // default slog.Default(); gets warnings and errors
}

// Server is an etcd of one member.
type Server struct {
	etcd *embed.Etcd
}

// maxTxnOps and maxRequest let one transaction hold what one apply of a file may bring.
const (
	maxTxnOps  = 1 << 17  // several for each object: it is in bundles, too
	maxRequest = 64 << 20 // bytes
)

// Embed starts a server and waits until it serves, or ctx ends. The data of an earlier
// one in the same directory is taken over.
func Embed(ctx context.Context, c EmbedConfig) (*Server, error) {
	if c.ClientURL == "" {
		c.ClientURL = "http://127.0.0.1:2379"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	client, err := url.Parse(c.ClientURL)
	if err != nil {
		return nil, fmt.Errorf("etcd client URL: %w", err)
	}
	if err := checkURL(client, c.TLS); err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "viaduct"
	cfg.Dir = c.Dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(c.Logger))
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	if client.Scheme == "https" {
		t := &cfg.ClientTLSInfo
		t.CertFile, t.KeyFile, t.TrustedCAFile, t.ClientCertAuth = c.TLS.Cert, c.TLS.Key, c.TLS.CA, true
		cfg.TlsMinVersion = "TLS1.3"
	}
	// The only member has no peers: it listens for none, but must have a name for itself.
	cfg.ListenPeerUrls = nil
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// It elects itself, so what elections wait for is only delay at the start.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.MaxTxnOps, cfg.MaxRequestBytes = maxTxnOps, maxRequest
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window)}
	// An hour of history lets a watch resume after any outage that matters; later ones list again.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	s := &Server{etcd: e}
	select {
	case <-e.Server.ReadyNotify():
		return s, nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = fmt.Errorf("stopped by itself")
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return nil, fmt.Errorf("start etcd: %w", err)
}

// checkURL refuses to serve beyond this machine whoever comes: who reaches etcd may change everything.
func checkURL(u *url.URL, files pki.Files) error {
	switch {
	case u.Scheme == "unix":
		return nil
	case u.Scheme == "https":
		if files.CA == "" || files.Cert == "" || files.Key == "" {
			return fmt.Errorf("etcd client URL %s: https needs a CA, a certificate and its key (--etcd-cacert, --etcd-cert, --etcd-key)", u)
		}
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("etcd client URL %s: want http, https or unix", u)
	}
	if !pki.Loopback(u.Hostname()) {
		return fmt.Errorf("etcd client URL %s is not on the loopback: that needs https, with certificates of both sides (\"viaduct certs\" makes them)", u)
	}
	return nil
}

// Endpoint is the URL it is reached at.
func (s *Server) Endpoint() string {
	u := s.etcd.Config().ListenClientUrls[0]
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		return u.String()
	}
	u.Host = s.etcd.Clients[0].Addr().String()
	return u.String()
}

// Err delivers an error that has ended the service.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops it and waits until it has. Its data stays. Clients that are still watching
// get 5 s to leave: close those of this process first.
func (s *Server) Close() { s.etcd.Close() }
