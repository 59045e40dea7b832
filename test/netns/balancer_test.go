package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// Web servers that say who they are, on two hosts, so that answers enter elsewhere than the connections.
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	balances(t, up(t, examples.LoadBalancer))
}

func TestLoadBalancerAcrossHosts(t *testing.T) {
	t.Parallel()
	balances(t, up(t, examples.LoadBalancer,
		"{host: h1, interface: tap-world}", "{host: h2, interface: tap-world}", "{host: h1, interface: tap-web-2}", "{host: h2, interface: tap-web-2}"))
}

func balances(t *testing.T, l *lab.Lab) {
	world := space(t, l, "world")
	stop, whole := map[string]func(){}, t
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		stop[name] = serve(t, space(t, l, name), name)
	}
	t.Run("health checks find the servers up", func(t *testing.T) { serving(t, world, "web-1", "web-2", "web-3") })
	t.Run("and one down that dies, and up again", func(t *testing.T) {
		stop["web-2"]()
		serving(t, world, "web-1", "web-3")
		state(t, l, "web-1", "up", "")
		state(t, l, "web-2", "down", "refused")
		serve(whole, space(t, l, "web-2"), "web-2") // to the end of the whole test
		serving(t, world, "web-1", "web-2", "web-3")
	})
	t.Run("every server gets connections", func(t *testing.T) {
		seen := map[string]int{}
		for range 40 {
			seen[get(t, world, "http://203.0.113.80/name")]++
		}
		if len(seen) != 3 {
			t.Errorf("connections went to %v", seen)
		}
	})
	t.Run("the same one for a client", func(t *testing.T) {
		// From ports that no earlier connection had: one to the same member by the other listener would look the same to the member, so that
		// another one is chosen.
		const url, option, ports = "http://203.0.113.80:81/name", "--local-port", "20000-20999"
		first := get(t, world, url, option, ports)
		for range 10 {
			if got := get(t, world, url, option, ports); got != first {
				t.Fatalf("it went to %s, and then to %s", first, got)
			}
		}
	})
	t.Run("IPv6", func(t *testing.T) { get(t, world, "http://[2001:db8::80]/name") })
	t.Run("a client beside the servers", func(t *testing.T) { get(t, space(t, l, "client"), "http://203.0.113.80/name") })
	t.Run("a server that is chosen for itself", func(t *testing.T) {
		for range 6 {
			get(t, space(t, l, "web-1"), "http://203.0.113.80/name")
		}
	})
	t.Run("datagrams in fragments", func(t *testing.T) {
		for _, name := range []string{"web-1", "web-2"} {
			echoDatagrams(t, space(t, l, name))
		}
		apply(t, l, fmt.Sprintf(`
{kind: pool, name: echo}
---
{kind: pool_member, name: echo-1, pool: echo, address: 10.0.1.10, port: %[1]d}
---
{kind: pool_member, name: echo-2, pool: echo, address: 10.0.1.11, port: %[1]d}
---
{kind: load_balancer, name: datagrams, router: gateway, address: 203.0.113.81, listeners: [{protocol: udp, port: %[1]d, pool: echo}]}
---
{kind: pool, name: echo-ipv6}
---
{kind: pool_member, name: echo-1-ipv6, pool: echo-ipv6, address: "fd00:1::10", port: %[1]d}
---
{kind: load_balancer, name: datagrams-ipv6, router: gateway, address: "2001:db8::81", listeners: [{protocol: udp, port: %[1]d, pool: echo-ipv6}]}
`, datagramPort))
		datagrams(t, world, "203.0.113.81", 8192)
		datagrams(t, world, "2001:db8::81", 8192)
	})
	t.Run("checked by ping", func(t *testing.T) {
		// The first of a router's load balancers gives the port of health checks its tunnel key: this one comes before those that are there.
		apply(t, l, `
{kind: pool, name: pinged, health_monitor: {type: PING, delay: 1, timeout: 1, max_retries: 1, max_retries_down: 2}}
---
{kind: pool_member, name: pinged-1, pool: pinged, address: 10.0.1.10, port: 9}
---
{kind: pool_member, name: pinged-2, pool: pinged, address: 10.0.1.99, port: 9}
---
{kind: pool, name: pinged-ipv6, health_monitor: {type: PING, delay: 1, timeout: 1, max_retries: 1, max_retries_down: 2}}
---
{kind: pool_member, name: pinged-1-ipv6, pool: pinged-ipv6, address: "fd00:1::10", port: 9}
---
{kind: load_balancer, id: 00000000-0000-4000-8000-000000000001, name: pings, router: gateway, address: 203.0.113.82, listeners: [{protocol: tcp, port: 80, pool: pinged}]}
---
{kind: load_balancer, name: pings-ipv6, router: gateway, address: "2001:db8::82", listeners: [{protocol: tcp, port: 80, pool: pinged-ipv6}]}
`)
		eventually(t, "who answers is up, who does not is down", func(context.Context) error {
			for name, want := range map[string]string{"pinged-1": "up", "pinged-1-ipv6": "up", "pinged-2": "down"} {
				if s, text := memberStatus(t, l, name); s.State != want {
					return fmt.Errorf("%s", text)
				}
			}
			return nil
		})
	})
	t.Run("ping", func(t *testing.T) { ping(t, world, "203.0.113.80") })
	t.Run("a port that nothing listens to", func(t *testing.T) { refused(t, world, "http://203.0.113.80:82/name") })
	t.Run("no new connections to who is disabled", func(t *testing.T) {
		apply(t, l, "{kind: pool_member, name: web-1, pool: web, address: 10.0.1.10, port: 8080, admin_state_up: false}")
		apply(t, l, "{kind: pool_member, name: web-2, pool: web, address: 10.0.1.11, port: 8080, weight: 0}")
		eventually(t, "everything goes to web-3", func(context.Context) error {
			for range 10 {
				if got, err := fetch(world, "http://203.0.113.80/name"); err != nil || got != "web-3" { // where CPUs are scarce, a check of it can be late, and it is down for a moment
					return fmt.Errorf("it went to %q: %v", got, err)
				}
			}
			return nil
		})
	})
	t.Run("refused when nobody serves", func(t *testing.T) {
		apply(t, l, "{kind: pool_member, name: web-3, pool: web, address: 10.0.1.12, port: 8080, weight: 0}")
		eventually(t, "connections are refused", func(context.Context) error {
			_, err := fetch(world, "http://203.0.113.80/name")
			if err == nil || !strings.Contains(err.Error(), "exit status 7") {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
	})
}

// state holds what "viaduct describe pool" and "get -o json" say of a member.
func state(t *testing.T, l *lab.Lab, name, want, why string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), viaduct, "--server=unix://"+l.Server.Socket, "describe", "pool", "web").CombinedOutput()
	row := regexp.MustCompile(`(?m)^` + name + ` .*$`).FindString(string(out))
	if err != nil || !regexp.MustCompile(` `+want+` +\d{4}-\d\d-\d\dT\S+Z +.*`+why).MatchString(row) {
		t.Errorf("%v, want %s %s:\n%s", err, want, why, out)
	}
	if s, text := memberStatus(t, l, name); s.State != want || !strings.Contains(s.Reason, why) || s.Since == nil || s.HostID == "" {
		t.Errorf("want %s %s:\n%s", want, why, text)
	}
}

// memberStatus is what "viaduct get -o json" says of a member behind one load balancer.
func memberStatus(t *testing.T, l *lab.Lab, name string) (s wire.MemberStatus, text string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), viaduct, "--server=unix://"+l.Server.Socket, "get", "pool_member", name, "-o", "json").CombinedOutput()
	var m struct{ Status []wire.MemberStatus }
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil || len(m.Status) != 1 {
		t.Fatalf("%v:\n%s", err, out)
	}
	return m.Status[0], string(out)
}

// serving waits until connections go to exactly these servers, and all of them succeed.
func serving(t *testing.T, from ns.Space, names ...string) {
	t.Helper()
	eventually(t, "connections to "+strings.Join(names, " and "), func(context.Context) error {
		seen := map[string]bool{}
		for range 24 {
			got, err := fetch(from, "http://203.0.113.80/name")
			if err != nil {
				return err
			}
			seen[got] = true
		}
		for _, n := range names {
			if !seen[n] {
				return fmt.Errorf("connections go to %v", seen)
			}
		}
		if len(seen) != len(names) {
			return fmt.Errorf("connections go to %v", seen)
		}
		return nil
	})
}

// serve runs a web server that has its name to give.
func serve(t *testing.T, s ns.Space, name string) (stop func()) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-m", "http.server", "--bind", "::", "--directory", dir, "8080")
	if err := s.Start(cmd); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}
	t.Cleanup(stop)
	eventually(t, "server "+name, func(context.Context) error {
		_, err := fetch(s, "http://[::1]:8080/name")
		return err
	})
	return stop
}

func fetch(s ns.Space, url string, more ...string) (string, error) {
	args := append([]string{"curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"}, more...)
	return command(s, append(args, url)...)
}

func get(t *testing.T, s ns.Space, url string, more ...string) string {
	t.Helper()
	out, err := fetch(s, url, more...)
	if err != nil || !strings.HasPrefix(out, "web-") {
		t.Fatalf("%s: %q, %v", url, out, err)
	}
	return out
}

// refused wants curl to end with 7, "failed to connect", and not with 28, which is a timeout.
func refused(t *testing.T, s ns.Space, url string) {
	t.Helper()
	if _, err := fetch(s, url); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("%s: %v, want it to be refused", url, err)
	}
}
