package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/native"
)

// door is where the API listens, and who is let in.
type door struct {
	listeners []net.Listener
	who       *access.Authenticator
	tls       *tls.Config // nil: plain text
	ask       bool        // clients that come by TCP must say who they are
}

// open opens all listeners or none.
func (c *Config) open() (*door, error) {
	d := &door{who: new(access.Authenticator)}
	if len(c.Listen) == 0 {
		c.Listen = []string{DefaultListen}
	}
	if c.Tokens != "" {
		t, err := access.LoadTokens(c.Tokens, c.Log)
		if err != nil {
			return nil, err
		}
		d.who.Tokens = t
	}
	if !c.TLS.Empty() {
		var err error
		if d.tls, err = c.TLS.Server(); err != nil {
			return nil, fmt.Errorf("API: %w", err)
		}
	}
	d.ask = c.Tokens != "" || c.TLS.CA != ""
	for _, addr := range c.Listen {
		l, err := listen(addr, d.tls != nil && d.ask)
		if err != nil {
			d.close()
			return nil, err
		}
		d.listeners = append(d.listeners, l)
		if l.Addr().Network() == "tcp" && !d.ask {
			c.Log.Warn("whoever has an account on this machine may change everything through the API: --token-file or --client-ca make them say who they are", "api", apiAddress(l))
		}
	}
	return d, nil
}

func (d *door) close() {
	for _, l := range d.listeners {
		l.Close()
	}
}

// context is what requests by a listener begin with: who can open the socket's file is root, or whom root has let in.
func (d *door) context(l net.Listener) context.Context {
	if l.Addr().Network() == "unix" || !d.ask {
		return access.Trust(context.Background())
	}
	return context.Background()
}

func (d *door) serve(srv *http.Server, l net.Listener) error {
	if d.tls != nil && l.Addr().Network() == "tcp" {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(l)
}

func (d *door) addresses() (all []string) {
	for _, l := range d.listeners {
		a := apiAddress(l)
		if d.tls != nil && l.Addr().Network() == "tcp" {
			a = "https" + a[len("http"):]
		}
		all = append(all, a)
	}
	return all
}

func listen(addr string, secure bool) (net.Listener, error) {
	path, ok := socketPath(addr)
	if !ok {
		if err := native.CheckListen(addr, secure); err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("API: %w", err)
		}
		return l, nil
	}
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	return l, nil
}

// listenUnix makes a socket that has never been open to others: who may open it may change everything.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	hidden, err := os.MkdirTemp(filepath.Dir(path), ".s-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(hidden)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(hidden, "s"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would be the name it has here
	err = os.Chmod(filepath.Join(hidden, "s"), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(hidden, "s"), path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &socket{l, path}, nil
}

// socket is a listener that goes by the name its file has got.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil { // only once: the name may be another server's by now
		os.Remove(s.path)
	}
	return err
}

// removeStale removes a socket that a server which was killed left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("another server listens on %s", path)
	}
	return os.Remove(path)
}
