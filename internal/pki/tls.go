package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files name the PEM files of one end of a connection.
type Files struct {
	CA   string // whom to trust
	Cert string
	Key  string
}

// Empty tells whether nothing is named.
func (f Files) Empty() bool { return f == Files{} }

func (f Files) check() error {
	if (f.Cert == "") != (f.Key == "") {
		return errors.New("a certificate and its key go together: give both")
	}
	return nil
}

// recheck is how often files are looked at for a renewal.
const recheck = time.Second

// Server is the configuration of a server: Cert and Key are needed; with CA, clients may show certificates, which must be of it. Renewed
// files are used for new connections; files that do not fit together leave the last good ones in use.
func (f Files) Server() (*tls.Config, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if f.Cert == "" {
		return nil, errors.New("TLS needs a certificate and its key")
	}
	l := &loader{files: f}
	if err := l.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, roots := l.current()
			c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "http/1.1"}}
			if roots != nil {
				c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, roots
			}
			return c, nil
		},
	}, nil
}

// MutualServer is that of a server that nobody may use without a certificate of CA.
func (f Files) MutualServer() (*tls.Config, error) {
	if f.CA == "" {
		return nil, errors.New("TLS of both sides needs the authority of the clients' certificates")
	}
	c, err := f.Server()
	if err != nil {
		return nil, err
	}
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := choose(h)
		if err == nil {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return c, err
	}
	return c, nil
}

// Client is the configuration of a client: CA in place of the system's authorities, and a certificate to show. Nil when nothing is named.
func (f Files) Client() (*tls.Config, error) {
	if f.Empty() {
		return nil, nil
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	l := &loader{files: f}
	if err := l.load(); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: l.roots}
	if f.Cert != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _ := l.current()
			return cert, nil
		}
	}
	return c, nil
}

// loader keeps what files held when they were last good.
type loader struct {
	files Files

	mu      sync.Mutex
	checked time.Time
	stamps  [3]time.Time
	cert    *tls.Certificate
	roots   *x509.CertPool
}

func (l *loader) current() (*tls.Certificate, *x509.CertPool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.checked) >= recheck {
		l.checked = now
		if l.modified() != l.stamps {
			_ = l.load() // half of a renewal, most likely: the next look finds the rest
		}
	}
	return l.cert, l.roots
}

func (l *loader) modified() (s [3]time.Time) {
	for i, name := range []string{l.files.CA, l.files.Cert, l.files.Key} {
		if info, err := os.Stat(name); err == nil {
			s[i] = info.ModTime()
		}
	}
	return s
}

func (l *loader) load() error {
	stamps := l.modified()
	cert, roots := l.cert, l.roots
	if l.files.Cert != "" {
		c, err := tls.LoadX509KeyPair(l.files.Cert, l.files.Key)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", l.files.Cert, err)
		}
		cert = &c
	}
	if l.files.CA != "" {
		b, err := os.ReadFile(l.files.CA)
		if err != nil {
			return fmt.Errorf("certificate authority: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(b) {
			return fmt.Errorf("certificate authority %s: no certificate in it", l.files.CA)
		}
	}
	l.cert, l.roots, l.stamps = cert, roots, stamps
	return nil
}
