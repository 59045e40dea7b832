// Package etcd is the store.Store that a cloud runs on. Each object is a key,
// <prefix><kind>/<id>, with a JSON value that etcdctl shows; its revision is etcd's mod revision.
//
// Transactions are optimistic: each is checked against a graph of the present state, and commits only if
// the guard key <prefix>.revision, which every transaction writes, is still as it was
// when that state was read. Who writes past the guard (by hand, with etcdctl) is seen
// by all watches, but not held to the rules.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// DefaultPrefix is where objects are kept.
const DefaultPrefix = "/viaduct/v1/"

// Config says how to reach etcd. Only Endpoints must be given.
type Config struct {
	Endpoints []string    // URLs
	TLS       *tls.Config // nil: plain text
	User      User        // whom etcd knows this client as; zero: it does not ask
	Prefix    string      // default DefaultPrefix; ends with a slash
	// RequestTimeout bounds each request to etcd. Default 5 s.
	RequestTimeout time.Duration
	// Forget: what transactions are checked against, the whole network, stays in memory for so long after the last one. 0: always.
	Forget time.Duration
	Logger *slog.Logger // default slog.Default()
}

// User is one of etcd's.
type User struct {
	Name         string
	PasswordFile string // the password is its contents, but for a newline at the end
}

// ErrPassword is a password that cannot be used.
var ErrPassword = errors.New("etcd's password")

// password reads it. A file that everybody may read is refused.
func (u *User) password() (string, error) {
	if u.Name == "" {
		return "", nil
	}
	f, err := os.Open(u.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("%w of user %s: %w", ErrPassword, u.Name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%w of user %s: %w", ErrPassword, u.Name, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%w of user %s: %s is open to everybody (mode %03o)", ErrPassword, u.Name, u.PasswordFile, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err != nil || len(b) > maxPassword {
		return "", fmt.Errorf("%w of user %s: %s: it is longer than %d bytes, or cannot be read", ErrPassword, u.Name, u.PasswordFile, maxPassword)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%w of user %s: %s is empty", ErrPassword, u.Name, u.PasswordFile)
	}
	return password, nil
}

// maxPassword is how many bytes a password has at most: what bcrypt, which etcd uses, takes.
const maxPassword = 72

// Store implements store.Store.
type Store struct {
	client  *clientv3.Client
	prefix  string
	timeout time.Duration
	forget  time.Duration
	log     *slog.Logger
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu    sync.Mutex // one transaction of this client at a time
	cache cache      // guarded by mu

	following sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// reconnect makes clients find a store that has come back within seconds (gRPC's own
// limit is two minutes), yet not all of them at once.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 3 * time.Second,
}

// window is how much one connection, and each of its streams, may have on its way to a client that has not read it. It is fixed: gRPC would find out how much
// is of use by a ping of its own for what comes (and the pong for that), which is what most of the messages of a store were in which little happens at a time.
const window = 4 << 20 // bytes: 40 ms at a gigabit

// Open makes a client. It does not wait for the cluster: calls fail with
// store.ErrUnavailable while it cannot be reached.
func Open(cfg Config) (*Store, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	password, err := cfg.User.password()
	if err != nil {
		return nil, err
	}
	token := ""
	if password != "" {
		// Given a name, New would wait for the cluster. With a token that etcd refuses it does not, and the first call gets a good one.
		token = "none yet"
	}
	ctx, cancel := context.WithCancel(context.Background())
	client, err := clientv3.New(clientv3.Config{
		Context:              ctx,
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		Token:                token,
		DialTimeout:          cfg.RequestTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		PermitWithoutStream:  true,
		MaxCallSendMsgSize:   maxRequest, // what is too much is the server's to say
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(reconnect), grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window)},
		Logger:               zap.NewNop(), // failures reach the caller as errors
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	client.Token, client.Username, client.Password = "", cfg.User.Name, password
	return &Store{client: client, prefix: cfg.Prefix, timeout: cfg.RequestTimeout, forget: cfg.Forget, log: cfg.Logger, ctx: ctx, cancel: cancel}, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.cancel()
	s.following.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// failure sorts an error of the client: the caller's own cancellation stays what it is,
// all else means that the store cannot be reached.
func failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error) {
	k := model.Key{Kind: kind, ID: id}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Get(bounded, s.keyString(k))
	if err != nil {
		return nil, failure(ctx, err)
	}
	if len(r.Kvs) == 0 {
		return nil, &model.ObjectError{Ref: model.Ref{Kind: kind, ID: id}, Err: store.ErrNotFound}
	}
	return wire.Decode(k, r.Kvs[0].Value, r.Kvs[0].ModRevision)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error) {
	var list []model.Object
	rev, err := s.read(ctx, kind, 0, func(o model.Object) { list = append(list, o) })
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(list, model.Compare)
	return list, rev, nil
}

// Revision is the store's present one.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	_, rev, err := s.readGuard(ctx)
	return rev, err
}

// pageSize keeps a reply of a big cloud within what gRPC carries with ease.
const pageSize = 5000

// read calls fn for each object of a kind as they were at revision at (0: now), ordered by
// id, and returns the revision read.
func (s *Store) read(ctx context.Context, kind model.Kind, at int64, fn func(model.Object)) (int64, error) {
	prefix := s.prefix + string(kind) + "/"
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Get(bounded, from, clientv3.WithRange(end), clientv3.WithRev(at), clientv3.WithLimit(pageSize))
		cancel()
		if err != nil {
			return 0, failure(ctx, err)
		}
		if at == 0 {
			at = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			if o := s.object(kv.Key, kv.Value, kv.ModRevision); o != nil {
				fn(o)
			}
		}
		if !r.More {
			return at, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// object decodes what is at key. What cannot be read (written by hand, or by a later version)
// is logged and left out: it must not stop the rest of the cloud.
func (s *Store) object(key, val []byte, rev int64) model.Object {
	k, ok := s.parseKey(key)
	if !ok {
		s.log.Warn("a key in the store is none of ours", "key", string(key))
		return nil
	}
	o, err := wire.Decode(k, val, rev)
	if err != nil {
		s.log.Warn("an object in the store cannot be read", "key", string(key), "error", err)
		return nil
	}
	return o
}
