package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// What world has no route to cannot be answered by it: whatever works here was translated, by rules.
func TestRulesTranslate(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// TestRedirect: what a rule redirects leaves by another port, and not where it was sent; into a port, it is what the VM there sends.
func TestRedirect(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	alice, bob, mallory := space(t, l, "alice"), space(t, l, "bob"), space(t, l, "mallory")
	ping(t, alice, "10.0.2.10")
	rule := func(redirect, failOpen string) string {
		return fmt.Sprintf(`
{kind: chain, name: aside}
---
{kind: rule, name: aside-1, chain: aside, position: 1, match: {proto: icmp, dst: 10.0.2.10}, action: redirect, redirect: {port: mallory, egress: %s%s}}
---
`, redirect, failOpen) + fmt.Sprintf(aliceWith, ", inbound_filter: aside")
	}
	apply(t, l, rule("true", ""))
	eventually(t, "mallory gets what alice sends to bob", func(ctx context.Context) error {
		var seen strings.Builder
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "tcpdump", "-n", "-l", "-c", "1", "-i", "eth0", "icmp and src 10.0.1.10 and dst 10.0.2.10")
		cmd.Stdout = &seen
		if err := mallory.Start(cmd); err != nil {
			return err
		}
		out, err := command(alice, "ping", "-n", "-c", "3", "-i", "0.3", "-W", "1", "10.0.2.10")
		if err == nil {
			return fmt.Errorf("bob answers: %s", out)
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(seen.String(), "10.0.1.10 > 10.0.2.10") {
			return fmt.Errorf("%v: %s", err, &seen)
		}
		return nil
	})
	ping(t, bob, "10.0.1.1") // everything else goes its way
	apply(t, l, rule("false", ""))
	eventually(t, "into mallory's port: to bob as if mallory had sent it", func(context.Context) error {
		out, err := command(alice, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "10.0.2.10")
		if err != nil {
			return errors.New(out)
		}
		return nil
	})
	apply(t, l, `{kind: port, name: mallory, bridge: blue, mac: "02:00:00:00:01:66", addresses: [10.0.1.66, "fd00:1::66"], admin_state_up: false, binding: {host: h1, interface: tap-mallory}}`)
	eventually(t, "a redirect to a port that is down drops", func(context.Context) error {
		if out, err := command(alice, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "10.0.2.10"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	apply(t, l, rule("true", ", fail_open: true"))
	eventually(t, "but for one that fails open", func(context.Context) error {
		out, err := command(alice, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "10.0.2.10")
		if err != nil {
			return errors.New(out)
		}
		return nil
	})
}
