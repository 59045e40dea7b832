package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// What world has no route to cannot be answered by it: whatever works here was translated, by rules.
func TestRulesTranslate(t *testing.T) {
	l := laboratory(t, examples.Rules)
	alice, web1, web2, world := space(t, l, "alice"), space(t, l, "web1"), space(t, l, "web2"), space(t, l, "world")

	t.Run("snat", func(t *testing.T) {
		ping(t, alice, "203.0.113.100")
		ping(t, alice, "2001:db8::100")
		stream(t, alice, world, "203.0.113.100:5001")
		stream(t, alice, world, "[2001:db8::100]:5001")
	})
	t.Run("errors are rewritten inside", func(t *testing.T) {
		out, err := command(alice, "bash", "-c", "exec 3<>/dev/udp/203.0.113.100/9; echo x >&3; sleep 0.5; echo y >&3")
		if err == nil || !strings.Contains(out, "refused") {
			t.Errorf("want the connection refused: %v\n%s", err, out)
		}
	})
	answer(t, web1, "10.0.1.11:8080", "web1")
	answer(t, web2, "10.0.1.12:8080", "web2")
	answer(t, web1, "[fd00:1::11]:8080", "web1")
	answer(t, web2, "[fd00:1::12]:8080", "web2")
	t.Run("dnat spreads over its targets", func(t *testing.T) {
		for _, url := range []string{"http://203.0.113.1/", "http://[2001:db8::1]/"} {
			seen := map[string]int{}
			for range 24 {
				out, err := command(world, "curl", "-sS", "-m", "5", url)
				if err != nil {
					t.Fatal(err, out)
				}
				seen[out]++
			}
			if seen["web1"]+seen["web2"] != 24 || seen["web1"] == 0 || seen["web2"] == 0 {
				t.Errorf("%s: %v", url, seen)
			}
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		if out, err := command(alice, "curl", "-sS", "-m", "5", "http://203.0.113.1/"); err != nil || !strings.HasPrefix(out, "web") {
			t.Errorf("%v: %q", err, out)
		}
		if out, err := command(web1, "curl", "-sS", "-m", "5", "http://203.0.113.1/"); err != nil || !strings.HasPrefix(out, "web") {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("reject at a bridge", func(t *testing.T) {
		apply(t, l, `
kind: chain
name: private
---
kind: rule
name: not-from-alice
chain: private
position: 1
match: {src: 10.0.1.10, dst: 10.0.1.11}
action: reject
---
kind: port
name: web1
bridge: inside
mac: 02:00:00:00:01:11
addresses: [10.0.1.11, "fd00:1::11"]
outbound_filter: private
`)
		eventually(t, "TCP is reset at once", func(ctx context.Context) error {
			out, err := command(alice, "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/10.0.1.11/8080")
			if err == nil || !strings.Contains(out, "refused") {
				return fmt.Errorf("%v: %q", err, out)
			}
			return nil
		})
		out, err := command(alice, "ping", "-n", "-c", "1", "-W", "3", "10.0.1.11")
		if err == nil || !strings.Contains(out, "Packet filtered") {
			t.Errorf("ping: %v\n%s", err, out)
		}
	})
	t.Run("the rules say what they have met", func(t *testing.T) {
		rs, err := debug.NewClient(l.Hosts[0].Socket()).Rules(t.Context(), "in")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Hits == 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}

// TestRulesTranslateAcrossHosts has world and a service on another host than the rest.
func TestRulesTranslateAcrossHosts(t *testing.T) {
	l := up(t, examples.Rules, "{host: h1, interface: tap-world}", "{host: h2, interface: tap-world}", "{host: h1, interface: tap-web2}", "{host: h2, interface: tap-web2}")
	alice, web1, web2, world := space(t, l, "alice"), space(t, l, "web1"), space(t, l, "web2"), space(t, l, "world")
	ping(t, alice, "203.0.113.100")
	ping(t, alice, "2001:db8::100")
	answer(t, web1, "10.0.1.11:8080", "web1")
	answer(t, web2, "10.0.1.12:8080", "web2")
	for _, from := range []string{"world", "alice"} {
		s := space(t, l, from)
		for range 12 {
			if out, err := command(s, "curl", "-sS", "-m", "5", "http://203.0.113.1/"); err != nil || !strings.HasPrefix(out, "web") {
				t.Errorf("%s: %v: %q", from, err, out)
			}
		}
	}
	stream(t, alice, world, "203.0.113.100:5001")
}

// answer serves, in a namespace, a page that says who has answered.
func answer(t *testing.T, s ns.Space, address, name string) {
	t.Helper()
	var ln net.Listener
	err := s.Do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	t.Cleanup(func() { srv.Close() })
	go func() { _ = srv.Serve(ln) }()
}
