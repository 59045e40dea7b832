package debug

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
	"strconv"
	"syscall"

	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// Errors of a Client, wrapped with what they concern.
var (
	ErrUnreachable = errors.New("agent cannot be reached") // nobody listens on the socket
	ErrNotFound    = errors.New("not found")               // what was asked for does not exist
	ErrInvalid     = errors.New("invalid")                 // what was asked for makes no sense
	ErrConflict    = errors.New("conflict")                // somebody else has it, or there is none left
	ErrUnavailable = errors.New("not available now")       // the agent is not ready, or its store is away
)

// statuses are how causes travel.
var statuses = map[int]error{
	http.StatusNotFound: ErrNotFound, http.StatusBadRequest: ErrInvalid, http.StatusConflict: ErrConflict, http.StatusServiceUnavailable: ErrUnavailable,
}

// Client talks to one agent. Safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the socket's path. It does not connect.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}
	return c
}

// Ready returns nil when the agent serves packets for all it knows, else why not.
func (c *Client) Ready(ctx context.Context) error { return c.do(ctx, "GET", "/readyz", nil, nil) }

// Ports lists the virtual ports bound to the host.
func (c *Client) Ports(ctx context.Context) (ps []Port, err error) {
	return ps, c.do(ctx, "GET", "/v1/ports", nil, &ps)
}

// Flows lists up to limit flows (0: all), of one port by name, id or interface ("": of all).
func (c *Client) Flows(ctx context.Context, port string, limit int) (fs []Flow, err error) {
	q := url.Values{"port": {port}, "limit": {strconv.Itoa(limit)}}
	return fs, c.do(ctx, "GET", "/v1/flows?"+q.Encode(), nil, &fs)
}

// Rules lists the rules of one chain by name or id ("": of all), in their order.
func (c *Client) Rules(ctx context.Context, chain string) (rs []Rule, err error) {
	return rs, c.do(ctx, "GET", "/v1/rules?"+url.Values{"chain": {chain}}.Encode(), nil, &rs)
}

// Stats reads the agent's counters.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.do(ctx, "GET", "/v1/stats", nil, &s)
}

// Metrics reads the agent's figures, in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	resp, err := c.send(ctx, "GET", "/metrics", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// Trace asks what would become of a frame.
func (c *Client) Trace(ctx context.Context, r TraceRequest) (a TraceAnswer, err error) {
	return a, c.do(ctx, "POST", "/v1/trace", r, &a)
}

// Watch has the agent trace the next n real packets (0: all) that enter at port ("": anywhere). When it returns the agent is
// watching: what is sent from now on is seen. The stream ends after n packets or with ctx.
func (c *Client) Watch(ctx context.Context, port string, n int) (*Trees, error) {
	q := url.Values{"port": {port}, "count": {strconv.Itoa(n)}}
	resp, err := c.send(ctx, "GET", "/v1/trace/live?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return &Trees{resp.Body, json.NewDecoder(resp.Body)}, nil
}

// Trees is what real packets leave behind, as it comes. Not safe for concurrent use.
type Trees struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Next waits for the next packet's tree; io.EOF after the last.
func (t *Trees) Next() (*trace.Node, error) {
	n := new(trace.Node)
	return n, t.dec.Decode(n)
}

// Close ends the watching.
func (t *Trees) Close() error { return t.body.Close() }

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s: is it running? (viaduct agent; --socket names another one)", ErrUnreachable, c.socket)
	case err != nil:
		return nil, err
	case resp.StatusCode < 300:
		return resp, nil
	}
	defer resp.Body.Close()
	var p Problem
	if json.NewDecoder(resp.Body).Decode(&p) != nil || p.Error == "" {
		p.Error = resp.Status
	}
	if cause := statuses[resp.StatusCode]; cause != nil {
		return nil, &failure{p.Error, cause}
	}
	return nil, errors.New(p.Error)
}

// failure is what an agent has answered.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }
