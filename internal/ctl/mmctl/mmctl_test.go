package mmctl

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

const port = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

// The whole of it, with an agent, is in test/netns; here are the answers that a healthy agent does not give.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   string
		status int // of the agent's answer
		body   any
		code   int
		want   string // in what it says
	}{
		{"bound", "--bind-port " + port + " tap0", 200, struct{}{}, 0, ""},
		{"upper case", "--bind-port " + strings.ToUpper(port) + " tap0", 200, struct{}{}, 0, ""},
		{"unbound", "--unbind-port " + port, 200, map[string]bool{"done": true}, 0, ""},
		{"was not bound", "--unbind-port " + port, 200, map[string]bool{"done": false}, 0, "was not bound on this host"},
		{"help", "--help", 0, nil, 0, "--unbind-port PORT"},
		{"nothing", "", 0, nil, 1, "see mm-ctl --help"},
		{"no interface", "--bind-port " + port, 0, nil, 1, "see mm-ctl --help"},
		{"too much", "--unbind-port " + port + " tap0", 0, nil, 1, "see mm-ctl --help"},
		{"no UUID", "--bind-port web tap0", 0, nil, 1, `"web" is no UUID`},
		{"invalid interface", "--bind-port " + port + " a/b", 400, debug.Problem{Error: "interface"}, 1, "interface"},
		{"no such port", "--bind-port " + port + " tap0", 404, debug.Problem{Error: "not found"}, 3, "viaduct get port"},
		{"conflict", "--bind-port " + port + " tap0", 409, debug.Problem{Error: "changed since"}, 3, "changed since (somebody"},
		{"store away", "--unbind-port " + port, 503, debug.Problem{Error: "store"}, 3, "store"},
		{"broken", "--unbind-port " + port, 500, debug.Problem{Error: "broken"}, 255, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := serve(t, c.status, c.body)
			var out strings.Builder
			if got := Run(context.Background(), socket, strings.Fields(c.args), &out, &out); got != c.code || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit code %d, want %d: %s", got, c.code, out.String())
			}
		})
	}
	var out strings.Builder
	if got := Run(context.Background(), filepath.Join(t.TempDir(), "none"), []string{"--unbind-port", port}, &out, &out); got != 255 || !strings.Contains(out.String(), "is it running?") {
		t.Errorf("no agent: %d: %s", got, out.String())
	}
}

func serve(t *testing.T, status int, body any) string {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, port) {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return socket
}
