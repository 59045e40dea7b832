package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// An etcd that asks who its clients are serves one that says so, and may use what is ours alone; no other.
func TestUser(t *testing.T) {
	c := start(t)
	admin := byHand(t, c)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(admin.UserAdd(ctx, "root", "admin's"))
	must(admin.UserGrantRole(ctx, "root", "root"))
	must(admin.RoleAdd(ctx, "viaduct"))
	prefix := strings.TrimSuffix(etcd.DefaultPrefix, "/") // what lives with sessions is beside
	must(admin.RoleGrantPermission(ctx, "viaduct", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(admin.UserAdd(ctx, "viaduct", "secret"))
	must(admin.UserGrantRole(ctx, "viaduct", "viaduct"))
	must(admin.AuthEnable(ctx))

	dir := t.TempDir()
	open := func(name, password string) *etcd.Store {
		t.Helper()
		cfg := etcd.Config{Endpoints: []string{c.srv.Endpoint()}, RequestTimeout: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)}
		if name != "" {
			cfg.User = etcd.User{Name: name, PasswordFile: filepath.Join(dir, password)}
			if err := os.WriteFile(cfg.User.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := etcd.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	br := &model.Bridge{Meta: model.Meta{ID: uuid.New(), Name: "net"}}
	for _, s := range []*etcd.Store{open("", ""), open("viaduct", "wrong")} {
		if _, err := s.Txn(ctx, store.Op{Verb: store.Create, Object: br}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("somebody else writes: %v", err)
		}
		if _, err := s.Feed(ctx); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("somebody else reads: %v", err)
		}
	}

	s := open("viaduct", "secret")
	following, stop := context.WithCancel(ctx)
	defer stop()
	f, err := s.Feed(following)
	if err != nil {
		t.Fatal(err)
	}
	f.Want(model.Bundle{Kind: model.BundleBridge, ID: br.ID})
	if e := <-f.Events(); !e.Whole {
		t.Errorf("%+v", e)
	}
	rev, err := s.Txn(ctx, store.Op{Verb: store.Create, Object: br})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-f.Events(); e.Revision != rev || len(e.Objects) != 1 {
		t.Errorf("%+v", e)
	}
	session, err := s.Join(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	must(nil, session.Put(ctx, "host/x", nil))
	stop()
	for range f.Events() {
	}
}

// A password that cannot be read, or that everybody can read, is an error at once.
func TestPasswordFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "password")
	cfg := etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, User: etcd.User{Name: "viaduct", PasswordFile: name}}
	if _, err := etcd.Open(cfg); !errors.Is(err, etcd.ErrPassword) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Open(cfg); !errors.Is(err, etcd.ErrPassword) {
		t.Errorf("open to everybody: %v", err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := etcd.Open(cfg) // does not wait for the cluster, which is away
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
