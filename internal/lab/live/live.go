// Package live reads the trees that real packets leave behind, as an agent's debug socket streams them.
package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// Stream is a stream of trees. Not safe for concurrent use.
type Stream struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Open has the agent behind the socket trace what enters at a port, by name, id or interface. When it
// returns the agent is tracing: what is sent from now on is seen, which debug.Client.Watch cannot
// promise. The stream ends with ctx.
func Open(ctx context.Context, socket, port string) (*Stream, error) {
	u := url.URL{Scheme: "http", Host: "agent", Path: "/v1/trace/live", RawQuery: url.Values{"port": {port}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Do(req) // answers as soon as the packets are watched
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // the status says it already
		return nil, fmt.Errorf("trace of port %s: %s: %s", port, resp.Status, bytes.TrimSpace(b))
	}
	return &Stream{resp.Body, json.NewDecoder(resp.Body)}, nil
}

// Next waits for the next packet's tree.
func (s *Stream) Next() (*trace.Node, error) {
	n := new(trace.Node)
	if err := s.dec.Decode(n); err != nil {
		return nil, err
	}
	return n, nil
}

// Close ends the tracing.
func (s *Stream) Close() error { return s.body.Close() }
