package ctl_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/applied"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// agent stands for that of a host: it answers questions, unless it lags.
func agent(t *testing.T, s *mem.Store, n byte, name string, lags bool) {
	id := uuid.UUID{15: n}
	if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: id, Name: name}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	texts, ended, heard := make(chan string), make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); s.Announce(ctx, applied.Key(id), texts) }()
	texts <- applied.Text(0)
	texts <- applied.Text(0) // the first is there
	go func() {
		defer close(heard)
		news, err := s.WatchKeys(ctx, applied.AskedKey)
		for range news {
			asked, _, _ := applied.Asked(ctx, s)
			if lags || err != nil {
				continue
			}
			select {
			case texts <- applied.Text(asked):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended; <-heard })
}

// cli runs the command line against the store, as whoever shows the token.
func cli(t *testing.T, s *mem.Store, auth *access.Authenticator, token string, args ...string) (exit.Code, string) {
	srv := httptest.NewServer(native.New(native.Config{
		Context: t.Context(), Store: s, Keys: s, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Auth: auth,
	}))
	defer srv.Close()
	var out bytes.Buffer
	root := ctl.New()
	root.SetOut(&out)
	root.SetErr(&out)
	args = append([]string{"--server", srv.URL}, args...)
	if token != "" {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--token-file", file)
	}
	code := ctl.Run(t.Context(), root, args)
	return exit.Code(code), out.String()
}

func bridge(t *testing.T, name string) string {
	file := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "kind: bridge\nname: %s\n", name), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestWaitForHosts: a change ends when all that run have applied it, or by naming those that have not; what is not running is not waited for.
func TestWaitForHosts(t *testing.T) {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	agent(t, s, 1, "h1", false)
	if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: uuid.UUID{15: 9}, Name: "dead"}}}); err != nil {
		t.Fatal(err)
	}
	run := func(want exit.Code, text string, args ...string) {
		t.Helper()
		if code, out := cli(t, s, nil, "", args...); code != want || !strings.Contains(out, text) {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
	run(exit.OK, "bridge/a created", "apply", "-f", bridge(t, "a"), "--wait=applied", "--timeout=10s")
	run(exit.OK, "bridge/a deleted", "delete", "bridge", "a", "--wait=applied", "--timeout=10s")
	for i, n := range []string{"h3", "h2"} {
		agent(t, s, byte(2+i), n, true)
	}
	run(exit.Timeout, "stored, but not applied yet by h2, h3\n", "apply", "-f", bridge(t, "b"), "--wait=applied", "--timeout=300ms")
	run(exit.OK, "bridge/b unchanged", "apply", "-f", bridge(t, "b"), "--wait=applied", "--timeout=300ms") // nothing to wait for
	run(exit.Timeout, "stored, but not applied yet by h2, h3\n", "delete", "-f", bridge(t, "b"), "--wait=applied", "--timeout=300ms")
	for _, until := range []string{"store", "none"} {
		run(exit.OK, "bridge/c", "apply", "-f", bridge(t, "c"), "--wait="+until)
		run(exit.OK, "bridge/c deleted", "delete", "bridge", "c", "--wait="+until)
	}
	run(exit.Usage, `--wait "never": want none, store or applied`, "apply", "-f", bridge(t, "d"), "--wait=never")
	run(exit.NotFound, "", "delete", "bridge", "d") // it was not made
}

// TestTenantsWaitToo: for all hosts, of which they are told the number alone.
func TestTenantsWaitToo(t *testing.T) {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	agent(t, s, 1, "h1", false)
	token, e, err := access.NewToken(access.Principal{Name: "alice", Role: access.Tenant, Tenant: "acme"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := access.WriteFile(file, &access.File{Tokens: []access.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	tokens, err := access.LoadTokens(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	auth := &access.Authenticator{Tokens: tokens}
	if code, out := cli(t, s, auth, token, "apply", "-f", bridge(t, "a"), "--wait=applied", "--timeout=10s"); code != exit.OK {
		t.Errorf("%d: %s", code, out)
	}
	agent(t, s, 2, "h2", true)
	code, out := cli(t, s, auth, token, "delete", "bridge", "a", "--wait=applied", "--timeout=300ms")
	if code != exit.Timeout || !strings.Contains(out, "not applied yet by 1 of 2 hosts") || strings.Contains(out, "h2") {
		t.Errorf("%d: %s", code, out)
	}
}
