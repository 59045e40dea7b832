// Package debug speaks HTTP with the sockets of a laboratory's daemons.
package debug

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// Statuses of a port.
const (
	StatusUp      = "up"
	StatusWaiting = "waiting" // for its interface
)

// Port is a virtual port as its agent has it.
type Port struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Interface string `json:"interface"`
	Status    string `json:"status"`
}

// Client talks to one socket. Safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// New makes a client; it does not connect yet.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true, // nothing to be closed
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Ready is nil when GET /readyz says yes.
func (c *Client) Ready(ctx context.Context) error {
	body, err := c.get(ctx, "/readyz", nil)
	if err != nil {
		return err
	}
	return body.Close()
}

// Ports lists the agent's ports.
func (c *Client) Ports(ctx context.Context) ([]Port, error) {
	body, err := c.get(ctx, "/v1/ports", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var ports []Port
	if err := json.NewDecoder(body).Decode(&ports); err != nil {
		return nil, fmt.Errorf("%s: ports: %w", c.socket, err)
	}
	return ports, nil
}

// Traces is a stream of the trees that packets leave behind.
type Traces struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Trace has the agent trace the next count packets that enter at a port, by name or id. When it returns, the
// agent is tracing. The stream ends with ctx.
func (c *Client) Trace(ctx context.Context, port string, count int) (*Traces, error) {
	body, err := c.get(ctx, "/v1/trace/live", url.Values{"port": {port}, "count": {strconv.Itoa(count)}})
	if err != nil {
		return nil, err
	}
	return &Traces{body, json.NewDecoder(body)}, nil
}

// Next waits for the next packet's tree. io.EOF: that was all.
func (t *Traces) Next() (*trace.Node, error) {
	n := new(trace.Node)
	if err := t.dec.Decode(n); err != nil {
		return nil, err
	}
	return n, nil
}

// Close ends the tracing.
func (t *Traces) Close() error { return t.body.Close() }

func (c *Client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: GET %s: %s: %s", c.socket, path, resp.Status, bytes.TrimSpace(b))
	}
	return resp.Body, nil
}
