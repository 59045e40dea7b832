// Package client speaks Viaduct's native API. A Client is a store.Store, so that what works
// on a store, a test or a laboratory or the command line, need not know where it is.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// DefaultServer is where a server listens unless told otherwise.
const DefaultServer = "http://127.0.0.1:8181"

// Client is a store.Store over HTTP. Besides the store's errors, which come as *Error, it
// returns os.ErrPermission when the server's socket may not be opened. Safe for concurrent use.
type Client struct {
	server string // as given, for messages
	base   string
	token  string // may be empty
	http   *http.Client
	closed context.Context // ends watches
	close  context.CancelFunc
}

var _ store.Store = (*Client)(nil)

// Config says where the server is, and who we are to it. Only Server must be given.
type Config struct {
	Server string    // http://HOST:PORT, https://HOST:PORT or unix:///PATH
	Token  string    // never sent but to the loopback, a socket, or by TLS
	TLS    pki.Files // CA: whom to trust in place of the system's authorities; Cert and Key: what to show
}

// New makes a client that says nothing of who it is. It does not connect yet.
func New(server string) (*Client, error) { return Open(Config{Server: server}) }

// Open makes a client. It does not connect yet.
func Open(cfg Config) (*Client, error) {
	const want = "want https://HOST:PORT, http://HOST:PORT or unix:///PATH"
	server := cfg.Server
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("server %q: %s: %w", server, want, err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true}
	c := &Client{server: server, token: cfg.Token, http: &http.Client{Transport: transport}}
	if !cfg.TLS.Empty() && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q: certificates are for https", server)
	}
	switch {
	case u.Scheme == "https" && u.Host != "" && strings.Trim(u.Path, "/") == "":
		c.base = "https://" + u.Host
		if transport.TLSClientConfig, err = cfg.TLS.Client(); err != nil {
			return nil, err
		}
	case u.Scheme == "http" && cfg.Token != "" && !pki.Loopback(u.Hostname()):
		return nil, fmt.Errorf("server %q: a token would be readable on its way: use https", server)
	case u.Scheme == "http" && u.Host != "" && strings.Trim(u.Path, "/") == "":
		c.base = "http://" + u.Host
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", u.Path)
		}
	default:
		return nil, fmt.Errorf("server %q: %s", server, want)
	}
	c.closed, c.close = context.WithCancel(context.Background())
	return c, nil
}

// Close ends watches and lets go of idle connections.
func (c *Client) Close() error {
	c.close()
	c.http.CloseIdleConnections()
	return nil
}

// Get implements store.Store.
func (c *Client) Get(ctx context.Context, kind model.Kind, id uuid.UUID) (model.Object, error) {
	w := wire.New(kind)
	if w == nil {
		return nil, fmt.Errorf("%w: kind %q", store.ErrInvalid, kind)
	}
	if err := c.call(ctx, http.MethodGet, "/v1/"+wire.Plural(kind)+"/"+id.String(), nil, w); err != nil {
		return nil, err
	}
	return w.Model()
}

// List implements store.Store.
func (c *Client) List(ctx context.Context, kind model.Kind) ([]model.Object, int64, error) {
	var list wire.List[json.RawMessage]
	if err := c.call(ctx, http.MethodGet, "/v1/"+wire.Plural(kind), nil, &list); err != nil {
		return nil, 0, err
	}
	objects := make([]model.Object, len(list.Items))
	for i, raw := range list.Items {
		w := wire.New(kind)
		if err := json.Unmarshal(raw, w); err != nil {
			return nil, 0, fmt.Errorf("%s: list of %s: %w", c.server, wire.Plural(kind), err)
		}
		o, err := w.Model()
		if err != nil {
			return nil, 0, err
		}
		objects[i] = o
	}
	return objects, list.Revision, nil
}

// Txn implements store.Store.
func (c *Client) Txn(ctx context.Context, ops ...store.Op) (int64, error) {
	var in wire.Transaction
	var changed []model.Object
	for _, op := range ops {
		if op.Object == nil {
			return 0, fmt.Errorf("%w: an op without an object", store.ErrInvalid)
		}
		if m := op.Object.GetMeta(); m.ID == uuid.Nil { // the server would choose one
			return 0, &model.FieldError{Kind: op.Object.Kind(), Name: m.Name, Field: "id", Reason: "is missing"}
		}
		if op.Tenant != "" {
			return 0, fmt.Errorf("%w: on whose behalf a client acts is what its token says", store.ErrInvalid)
		}
		w := wire.Op{IfRevision: op.IfRevision}
		switch op.Verb {
		case store.Create:
			w.Create = wire.Wrap(wire.FromModel(op.Object))
		case store.Replace:
			w.Replace = wire.Wrap(wire.FromModel(op.Object))
		case store.Delete:
			w.Delete = &wire.Ref{Kind: op.Object.Kind(), ID: op.Object.GetMeta().ID.String()}
		default:
			return 0, fmt.Errorf("%w: verb %d", store.ErrInvalid, op.Verb)
		}
		if op.Verb != store.Delete {
			changed = append(changed, op.Object)
		}
		in.Ops = append(in.Ops, w)
	}
	var out wire.Committed
	if err := c.call(ctx, http.MethodPost, "/v1/transactions", in, &out); err != nil {
		return 0, err
	}
	if len(out.Objects) != len(changed) {
		return 0, fmt.Errorf("%s: answered with %d objects instead of %d", c.server, len(out.Objects), len(changed))
	}
	for i, a := range out.Objects {
		o, err := toModel(a)
		if err != nil {
			return 0, err
		}
		model.Assign(changed[i], o)
	}
	return out.Revision, nil
}

// Version asks the server who it is.
func (c *Client) Version(ctx context.Context) (wire.Version, error) {
	var v wire.Version
	return v, c.call(ctx, http.MethodGet, "/version", nil, &v)
}

// Whoami asks the server whom it takes us for.
func (c *Client) Whoami(ctx context.Context) (wire.Principal, error) {
	var p wire.Principal
	return p, c.call(ctx, http.MethodGet, "/v1/whoami", nil, &p)
}

// Tenant is on whose behalf the client acts; empty for operators. It is what ref.Home asks.
func (c *Client) Tenant(ctx context.Context) (string, error) {
	p, err := c.Whoami(ctx)
	return p.Tenant, err
}

func toModel(a *wire.Any) (model.Object, error) {
	w, err := a.Object()
	if err != nil {
		return nil, err
	}
	return w.Model()
}

// call sends in as JSON, unless nil, and reads the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return c.transportError(ctx, fmt.Errorf("answer to %s %s: %w", method, path, err))
	}
	return nil
}

// open sends a request; the caller closes the body of the answer, which is a success.
func (c *Client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, c.readError(resp)
	}
	return resp, nil
}

// transportError says what a broken or refused connection means to a user of a store.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", c.server, context.Cause(ctx))
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op // without the verb and the made-up URL in front
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s: %w", c.server, err)
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, c.server, err)
}

func (c *Client) readError(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || json.Unmarshal(b, e) != nil || e.Detail == "" {
		e.Detail = "HTTP status " + strconv.Itoa(resp.StatusCode) + " " + strings.TrimSpace(string(b))
	}
	return e
}
