package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/pki"
)

// Metrics says where the agent may be observed beside its socket. The zero value: nowhere.
type Metrics struct {
	// Listen is HOST:PORT, port 0 for a free one. Beyond the loopback who asks must show a certificate of TLS.CA.
	Listen string
	TLS    pki.Files
}

// open is nil when there is to be no listener.
func (m Metrics) open() (net.Listener, error) {
	if m.Listen == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(m.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics: listen address %q: %w", m.Listen, err)
	}
	secure := m.TLS.CA != "" && m.TLS.Cert != "" && m.TLS.Key != ""
	if !secure && !pki.Loopback(host) {
		return nil, fmt.Errorf("metrics: listen address %q is not on the loopback: that needs certificates of both sides "+
			"(--metrics-cert, --metrics-key, --metrics-client-ca; \"viaduct certs\" makes them)", m.Listen)
	}
	var config *tls.Config
	if !m.TLS.Empty() {
		if config, err = m.TLS.MutualServer(); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	l, err := net.Listen("tcp", m.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

// Version implements debug.Observed.
func (a *Agent) Version() string { return a.cfg.Version }

// Metrics implements debug.Observed.
func (a *Agent) Metrics() prometheus.Gatherer { return a.registry(a.cfg.Version) }

// Checks implements debug.Observed. A store that is away is no reason not to be ready: what is known goes on being served.
func (a *Agent) Checks() []debug.Check {
	done := func(name string, c <-chan struct{}) debug.Check {
		select {
		case <-c:
			return debug.Check{Name: name}
		default:
			return debug.Check{Name: name, Err: errors.New("not yet")}
		}
	}
	checks := []debug.Check{
		done("the topology has been read", a.mirror.Synced()),
		done("the host's interfaces are known", a.bindings.Listed()),
		{Name: "serving", Err: a.Ready()},
	}
	now := a.troubles.list()
	for _, what := range allTroubles {
		checks = append(checks, debug.Check{Name: "not " + what, Err: now[what], Advice: true})
	}
	return checks
}
