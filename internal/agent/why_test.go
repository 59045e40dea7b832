package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/ctl/hostctl"
)

// output is what a running command has written so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// command runs one of the host's commands against the agent.
func (h *rig) command(ctx context.Context, name string, args ...string) (string, error) {
	h.Helper()
	out := new(output)
	err := h.run(ctx, out, name, args...)
	return out.String(), err
}

func (h *rig) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	for _, c := range hostctl.Commands() {
		if c.Name() != name {
			continue
		}
		c.SetOut(out)
		c.SetErr(out)
		c.SetArgs(append(args, "--socket", h.socket))
		return c.ExecuteContext(ctx)
	}
	return errors.New("no such command")
}

// TestWhyAddsUp: every packet of the time is in the sum, and each reason of a drop has an example.
func TestWhyAddsUp(t *testing.T) {
	h := start(t, network()...)
	h.await("the port to be bound", func() bool { ps := h.ports(); return len(ps) == 1 && ps[0].Status == debug.StatusUp })
	ctx, cancel := context.WithCancel(t.Context())
	out, done := new(output), make(chan error)
	go func() { done <- h.run(ctx, out, "why", "vm", "--for", "0", "-o", "json") }()
	h.await("the command to show packets", func() bool {
		h.arp() // until it does, these are before its time
		return out.String() != ""
	})
	before := h.ports()[0].RxPackets
	noRoute := packet.BuildUDP(nil, packet.Ether{Src: vmMAC, Dst: gwMAC}, packet.IP{Src: addr("10.0.0.5"), Dst: addr("203.0.113.1"), TTL: 64}, 1, 2, nil)
	for range 20 {
		h.arp()
		h.inject(noRoute)
	}
	h.await("all to have entered", func() bool { p := h.ports()[0]; return p.RxPackets >= before+40 && p.InFlight == 0 && p.Waiting == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	last := lines[len(lines)-1]
	var s struct {
		Port    string
		Entered int64
		Off     int64
		Lines   []struct {
			Outcome, Reason, Meaning string
			Packets                  int64
			Example                  *struct{ Packet string }
		}
	}
	if err := json.Unmarshal([]byte(last), &s); err != nil {
		t.Fatalf("%v in %s", err, last)
	}
	sum := int64(0)
	dropped := int64(0)
	for _, l := range s.Lines {
		sum += l.Packets
		if l.Reason == "no_route" || l.Reason == "flow_drop" { // the first, and those that met its flow
			dropped += l.Packets
		}
		// What is shown one by one is bounded, so on a busy machine there may be no example; but never a wrong one.
		if l.Reason == "no_route" && l.Example != nil && !strings.Contains(l.Example.Packet, "203.0.113.1") {
			t.Errorf("the example of %s is %s", l.Reason, l.Example.Packet)
		}
		if l.Reason != "" && l.Meaning == "" {
			t.Errorf("%s means nothing", l.Reason)
		}
	}
	if s.Port != "vm" || s.Entered < 40 || sum != s.Entered || s.Off != 0 || dropped != 20 {
		t.Errorf("%d entered, lines of %d, %d of them dropped, off by %d:\n%s", s.Entered, sum, dropped, s.Off, last)
	}
	if _, err := h.command(t.Context(), "why", "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("an unknown port: %v", err)
	}
}

func TestTopShowsWhoCostsWhat(t *testing.T) {
	h := start(t, network()...)
	h.await("the port to be bound", func() bool { ps := h.ports(); return len(ps) == 1 && ps[0].Status == debug.StatusUp })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			h.arp()
			h.ports() // lets the workers go on
		}
	}()
	text, err := h.command(t.Context(), "top", "-n", "2", "--interval", "200ms", "-o", "json")
	cancel()
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d tables: %s", len(lines), text)
	}
	var s struct {
		Ports []struct {
			Port     string
			Share    float64
			Admitted float64 `json:"admitted_s"`
			P99      int64   `json:"setup_p99_ns"`
		}
	}
	if err := json.Unmarshal([]byte(lines[1]), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Ports) != 1 || s.Ports[0].Port != "vm" || s.Ports[0].Share != 1 || s.Ports[0].Admitted <= 0 || s.Ports[0].P99 <= 0 {
		t.Errorf("%+v", s)
	}
	table, err := h.command(t.Context(), "top", "-n", "1", "--interval", "100ms")
	if err != nil || !strings.Contains(table, "SHARE") || strings.Contains(table, "\x1b") {
		t.Errorf("%v\n%s", err, table)
	}
}

// TestFormsForPrograms: each command of the host says in YAML what it says in JSON.
func TestFormsForPrograms(t *testing.T) {
	h := start(t, network()...)
	h.await("the port to be bound", func() bool { ps := h.ports(); return len(ps) == 1 && ps[0].Status == debug.StatusUp })
	for _, args := range [][]string{
		{"ports"}, {"flows"}, {"rules"}, {"events"},
		{"trace", "--port", "vm", "--dst", "203.0.113.1", "--src", "10.0.0.5", "--src-mac", vmMAC.String(), "--dst-mac", gwMAC.String()},
		{"top", "-n", "1", "--interval", "100ms"},
		{"why", "vm", "--for", "100ms", "--quiet"},
	} {
		inJSON, err := h.command(t.Context(), args[0], append(args[1:], "-o", "json")...)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		inYAML, err := h.command(t.Context(), args[0], append(args[1:], "-o", "yaml")...)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		var fromJSON, fromYAML any
		if err := json.NewDecoder(strings.NewReader(inJSON)).Decode(&fromJSON); err != nil {
			t.Fatalf("%q: %v in %s", args, err, inJSON)
		}
		if err := yaml.NewDecoder(strings.NewReader(inYAML)).Decode(&fromYAML); err != nil {
			t.Fatalf("%q: %v in %s", args, err, inYAML)
		}
		if j, y := fields(fromJSON), fields(fromYAML); len(j) == 0 && args[0] != "flows" && args[0] != "rules" || !slices.Equal(j, y) {
			t.Errorf("%q: JSON has %q, YAML %q", args, j, y)
		}
	}
	if names, err := h.command(t.Context(), "ports", "-o", "name"); err != nil || names != "port/vm\n" {
		t.Errorf("names: %q, %v", names, err)
	}
}

// fields are those of an object, or of the first of a list.
func fields(v any) []string {
	if l, ok := v.([]any); ok && len(l) > 0 {
		v = l[0]
	}
	m, _ := v.(map[string]any)
	return slices.Sorted(maps.Keys(m))
}
