package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/server"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// site is a server with certificates, tokens and an embedded etcd, reached only by TLS.
type site struct {
	dir    pki.Dir
	tokens string
	at     server.Addresses
	log    *logged
}

// logged keeps what the server logs.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (s *site) files(name string) pki.Files {
	d := string(s.dir)
	return pki.Files{CA: filepath.Join(d, "ca.crt"), Cert: filepath.Join(d, name+".crt"), Key: filepath.Join(d, name+".key")}
}

func (s *site) issue(t *testing.T, name string, valid time.Duration, p access.Principal) {
	t.Helper()
	n := pkix.Name{CommonName: p.Name, Organization: []string{"viaduct:" + string(p.Role)}}
	if p.Tenant != "" {
		n.OrganizationalUnit = []string{p.Tenant}
	}
	if _, err := s.dir.Issue(name, pki.Request{Subject: n, Valid: valid}); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T) *site {
	t.Helper()
	root := t.TempDir()
	s := &site{dir: pki.Dir(filepath.Join(root, "pki")), tokens: filepath.Join(root, "tokens.yaml"), log: new(logged)}
	if _, err := s.dir.CreateAuthority(time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := s.dir.Issue("server", pki.Request{Subject: pkix.Name{CommonName: "server"}, Names: []string{"127.0.0.1"}, Server: true, Valid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := access.WriteFile(s.tokens, new(access.File)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan server.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Config{
			Listen: []string{"0.0.0.0:0", "unix://" + filepath.Join(root, "api.sock")}, TLS: s.files("server"), Tokens: s.tokens,
			DataDir: filepath.Join(root, "data"), EtcdListen: "https://127.0.0.1:0", EtcdTLS: s.files("server"),
			Log: slog.New(slog.NewTextHandler(s.log, nil)), Ready: func(a server.Addresses) { ready <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	select {
	case s.at = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("%v\n%s", err, s.log)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.at.API[0], "https://["), "]:")
	s.at.API[0] = "https://127.0.0.1:" + port
	return s
}

func (s *site) client(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	if cfg.Server == "" {
		cfg.Server = s.at.API[0]
	}
	c, err := client.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *site) token(t *testing.T, p access.Principal) string {
	t.Helper()
	token, e, err := access.NewToken(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := access.ReadFile(s.tokens)
	if err != nil {
		t.Fatal(err)
	}
	f.Tokens = append(f.Tokens, e)
	if err := access.WriteFile(s.tokens, f); err != nil {
		t.Fatal(err)
	}
	return token
}

// eventually waits for the server to have read its token file again.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 100 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal(what)
}

func TestWhoIsLetIn(t *testing.T) {
	s := begin(t)
	ctx := t.Context()
	other := pki.Dir(t.TempDir())
	if _, err := other.CreateAuthority(time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Issue("mallory", pki.Request{Subject: pkix.Name{CommonName: "mallory", Organization: []string{"viaduct:admin"}}, Valid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	foreign := pki.Files{CA: s.files("").CA, Cert: filepath.Join(string(other), "mallory.crt"), Key: filepath.Join(string(other), "mallory.key")}
	s.issue(t, "h1", time.Hour, access.Principal{Name: "h1", Role: access.Agent})
	s.issue(t, "expired", time.Nanosecond, access.Principal{Name: "gone", Role: access.Admin})
	s.issue(t, "norole", time.Hour, access.Principal{Name: "someone"})
	ca := pki.Files{CA: s.files("").CA}

	if p, err := s.client(t, client.Config{TLS: s.files("h1")}).Whoami(ctx); err != nil || p.Host != "h1" || p.Role != "agent" {
		t.Errorf("a host's certificate: %+v, %v", p, err)
	}
	if p, err := s.client(t, client.Config{Server: s.at.API[1]}).Whoami(ctx); err != nil || p.Role != "admin" {
		t.Errorf("root, by the socket: %+v, %v", p, err)
	}
	for name, c := range map[string]struct {
		cfg    client.Config
		denied bool // else the handshake fails
	}{
		"nobody":             {client.Config{TLS: ca}, true},
		"unknown token":      {client.Config{TLS: ca, Token: "viaduct_x"}, true},
		"no role":            {client.Config{TLS: s.files("norole")}, true},
		"expired":            {client.Config{TLS: s.files("expired")}, false},
		"foreign authority":  {client.Config{TLS: foreign}, false},
		"server not trusted": {client.Config{Token: "viaduct_x"}, false},
	} {
		_, err := s.client(t, c.cfg).Whoami(ctx)
		if err == nil || errors.Is(err, os.ErrPermission) != c.denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(s.log.String(), "msg=refused who=nobody") {
		t.Errorf("refusals are not in the log:\n%s", s.log)
	}
	// What tells nothing is for anybody: load balancers have no certificates.
	tlsc, err := ca.Client()
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) int {
		h := http.Client{Transport: &http.Transport{TLSClientConfig: tlsc, DisableKeepAlives: true}}
		resp, err := h.Get(s.at.API[0] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/version": 200, "/metrics": 401, "/v1/bridges": 401, "/v1/conf/schema": 401, "/nothing": 401} {
		if got := get(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestTokensOfARunningServer(t *testing.T) {
	s := begin(t)
	ctx := t.Context()
	ca := pki.Files{CA: s.files("").CA}
	alice := s.client(t, client.Config{TLS: ca, Token: s.token(t, access.Principal{Name: "alice", Role: access.Tenant, Tenant: "acme"})})
	bob := s.client(t, client.Config{TLS: ca, Token: s.token(t, access.Principal{Name: "bob", Role: access.Tenant, Tenant: "beta"})})
	eventually(t, "the tokens never count", func() bool { _, err := bob.Whoami(ctx); return err == nil })

	// The same documents, each tenant its own network; nothing of the other's is seen.
	text := "- {kind: bridge, name: blue}\n- {kind: port, name: vm, bridge: blue}\n"
	for _, c := range []*client.Client{alice, bob} {
		set, err := document.Parse(strings.NewReader(text), "f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.Apply(ctx, c); err != nil {
			t.Fatal(err)
		}
		list, _, err := c.List(ctx, model.KindPort)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
	}
	theirs, _, err := alice.List(ctx, model.KindBridge)
	if err != nil || len(theirs) != 1 || theirs[0].GetMeta().Tenant != "acme" {
		t.Fatalf("%v, %v", theirs, err)
	}
	bridge := theirs[0].GetMeta().ID
	if _, err := bob.Get(ctx, model.KindBridge, bridge); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another's: %v", err)
	}
	if _, err := bob.Txn(ctx, store.Op{Verb: store.Delete, Object: &model.Bridge{Meta: model.Meta{ID: bridge}}}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another's: %v", err)
	}
	if _, err := bob.Txn(ctx, store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: uuid.New(), Name: "h"}}}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a host: %v", err)
	}
	for _, part := range []string{"who=bob", "bridge " + bridge.String(), "belongs to others", "role=tenant"} {
		if !strings.Contains(s.log.String(), part) {
			t.Errorf("no %q in the log:\n%s", part, s.log)
		}
	}

	// A token that is withdrawn ends requests and open watches.
	events, err := bob.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f, err := access.ReadFile(s.tokens)
	if err != nil {
		t.Fatal(err)
	}
	f.Tokens = f.Tokens[:1]
	if err := access.WriteFile(s.tokens, f); err != nil {
		t.Fatal(err)
	}
	for range events { // until it is cut
	}
	if _, err := bob.Whoami(ctx); !errors.Is(err, os.ErrPermission) {
		t.Errorf("withdrawn: %v", err)
	}
	if _, err := alice.Whoami(ctx); err != nil {
		t.Errorf("the other token: %v", err)
	}
}

func TestEtcdAsksForCertificates(t *testing.T) {
	s := begin(t)
	s.issue(t, "h1", time.Hour, access.Principal{Name: "h1", Role: access.Agent})
	get := func(f pki.Files) error {
		cfg, err := f.Client()
		if err != nil {
			t.Fatal(err)
		}
		e, err := etcd.Open(etcd.Config{Endpoints: s.at.Etcd, TLS: cfg, RequestTimeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		_, _, err = e.List(t.Context(), model.KindHost)
		return err
	}
	if err := get(s.files("h1")); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := get(pki.Files{CA: s.files("").CA}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without: %v", err)
	}
}

func TestRefusesToListen(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.yaml")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	certs := pki.Dir(filepath.Join(dir, "pki"))
	if _, err := certs.CreateAuthority(time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := certs.Issue("s", pki.Request{Names: []string{"localhost"}, Server: true, Valid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	cert := pki.Files{Cert: filepath.Join(dir, "pki", "s.crt"), Key: filepath.Join(dir, "pki", "s.key")}
	quiet := slog.New(slog.DiscardHandler)
	for name, c := range map[string]struct {
		cfg  server.Config
		want string
	}{
		"beyond the loopback":   {server.Config{Listen: []string{"0.0.0.0:0"}}, "needs TLS and authentication"},
		"TLS, but nobody asked": {server.Config{Listen: []string{"127.0.0.1:0", "0.0.0.0:0"}, TLS: cert}, "needs TLS and authentication"},
		"a key is missing":      {server.Config{TLS: pki.Files{Cert: "x"}}, "go together"},
		"tokens others read":    {server.Config{Tokens: open}, "chmod 0600"},
		"no tokens":             {server.Config{Tokens: filepath.Join(dir, "none")}, "no such file"},
		"etcd in the open":      {server.Config{Listen: []string{"127.0.0.1:0"}, DataDir: dir, EtcdListen: "http://0.0.0.0:0"}, "not on the loopback"},
		"etcd without CA":       {server.Config{Listen: []string{"127.0.0.1:0"}, DataDir: dir, EtcdListen: "https://0.0.0.0:0"}, "https needs a CA"},
	} {
		c.cfg.Log = quiet
		if err := server.Run(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestRenewal: a renewed certificate is used for new connections, with no restart.
func TestRenewal(t *testing.T) {
	s := begin(t)
	cfg, err := pki.Files{CA: s.files("").CA}.Client()
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.at.API[0], "https://"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	renewed, err := s.dir.Renew("server")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old certificate stays in use", func() bool { return serial() != before })
	if got := serial(); got != renewed.SerialNumber.String() {
		t.Errorf("serial %s, want %s", got, renewed.SerialNumber)
	}
}
