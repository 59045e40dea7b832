package netns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// silent fails when a ping is answered.
func silent(t *testing.T, s ns.Space, address string) {
	t.Helper()
	if out, err := command(s, "ping", "-n", "-c", "1", "-W", "1", address); err == nil {
		t.Errorf("%s answers:\n%s", address, out)
	}
}

// TestSecurityGroups: the example does what it says, in both families, out of the box: no rule speaks of ARP or
// neighbour discovery, and nothing is said about answers.
func TestSecurityGroups(t *testing.T) {
	t.Parallel()
	l := up(t, examples.SecurityGroups)
	web, db, alice, world := space(t, l, "web"), space(t, l, "db"), space(t, l, "alice"), space(t, l, "world")
	echo(t, web, ":80")
	echo(t, web, ":22")
	echo(t, db, ":5432")
	for _, address := range []string{"10.0.1.10", "fd00:1::10"} {
		ping(t, world, address)
		ping(t, alice, address)
	}
	ping(t, alice, "10.0.1.31")
	ping(t, alice, "fd00:1::31")
	ping(t, alice, "10.0.1.10", "-s", "4000") // fragments, and their answers
	ping(t, alice, "fd00:1::10", "-s", "4000")
	silent(t, world, "10.0.1.30")
	silent(t, world, "fd00:1::30")
	silent(t, world, "10.0.1.20")
	for _, c := range []struct {
		from    ns.Space
		address string
		open    bool
	}{
		{world, "10.0.1.10:80", true}, {world, "[fd00:1::10]:80", true}, {alice, "10.0.1.10:80", true},
		{world, "10.0.1.10:22", false}, {world, "[fd00:1::10]:22", false}, {alice, "10.0.1.20:5432", false},
		{web, "10.0.1.20:5432", true}, {web, "10.0.1.20:5433", false},
	} {
		patience := patience
		if !c.open {
			patience = time.Second
		}
		conn, err := dial(t, c.from, c.address, patience)
		if err == nil {
			err = exchange(conn, patience)
		}
		if (err == nil) != c.open {
			t.Errorf("%s: open %v, want %v (%v)", c.address, err == nil, c.open, err)
		}
	}
	for _, rule := range []string{"web-http4", "web-http6", "web-ping4", "web-ping6", "db-sql", "default-in4", "default-in6", "default-out4"} {
		if hits(t, l, rule) == 0 {
			t.Errorf("rule %s has no hits", rule)
		}
	}
	if n := dropped(t, l, "group_drop"); n == 0 {
		t.Error("nothing is counted as dropped")
	}
}

// TestSecurityGroupChanges: what is changed counts at once, for connections that were open before, too.
func TestSecurityGroupChanges(t *testing.T) {
	t.Parallel()
	l := up(t, examples.SecurityGroups)
	web, db, alice, world := space(t, l, "web"), space(t, l, "db"), space(t, l, "alice"), space(t, l, "world")
	echo(t, web, ":80")
	echo(t, db, ":5432")
	open := func(from ns.Space, address string) func() error {
		t.Helper()
		c, err := dial(t, from, address, patience)
		if err == nil {
			err = exchange(c, patience)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() error { return exchange(c, time.Second) }
	}
	surf, query := open(world, "10.0.1.10:80"), open(web, "10.0.1.20:5432")
	alive := func(what string, talk func() error) {
		t.Helper()
		eventually(t, what, func(context.Context) error { return talk() })
	}
	cut := func(what string, talk func() error) {
		t.Helper()
		eventually(t, what, func(context.Context) error {
			if err := talk(); err == nil {
				return fmt.Errorf("the connection is alive")
			}
			return nil
		})
	}
	rule := func(prefix string) string {
		return "kind: security_group_rule\nname: web-http4\nsecurity_group: web\ndirection: ingress\nprotocol: tcp\nport_range_min: 80\nport_range_max: 80\n" + prefix
	}
	apply(t, l, rule("remote_ip_prefix: 192.0.2.0/24\n"))
	cut("a rule that is narrowed cuts what it had allowed", surf)
	alive("the web server's own connection to another port", query)
	if n := dropped(t, l, "group_drop"); n == 0 {
		t.Error("nothing is counted as dropped")
	}
	apply(t, l, rule(""))
	eventually(t, "with the rule the connection goes on", func(context.Context) error { return surf() })

	port := func(groups string) string {
		return "kind: port\nname: web\nbridge: shop\nmac: 02:00:00:00:01:10\naddresses: [10.0.1.10, \"fd00:1::10\"]\nport_security: true\n" + groups
	}
	apply(t, l, port(""))
	cut("who leaves the group is not a member at the database any more", query)
	cut("nor has its ports open", surf)
	ping(t, alice, "10.0.1.10") // it is in the default group now
	silent(t, world, "10.0.1.10")
	apply(t, l, port("security_groups: []\n"))
	eventually(t, "an empty list allows nothing", func(context.Context) error {
		if out, err := command(alice, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.10"); err == nil {
			return fmt.Errorf("it answers: %s", out)
		}
		return nil
	})
	apply(t, l, port("security_groups: [web]\n"))
	eventually(t, "back in its group it talks to the database again", func(context.Context) error { return query() })
}

// TestNmap: its odd packets are judged as connection tracking has it, and the agent lives: scans without SYN find nothing, where
// SYN scans do.
func TestNmap(t *testing.T) {
	t.Parallel()
	needs(t, "nmap")
	l := up(t, examples.SecurityGroups)
	web, world := space(t, l, "web"), space(t, l, "world")
	echo(t, web, ":80")
	scan := func(flags string) string {
		t.Helper()
		out, err := command(world, "nmap", "-n", "-Pn", "--max-retries", "1", "-p", "22,80", "-oG", "-", flags, "10.0.1.10")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	if out := scan("-sS"); !strings.Contains(out, "80/open/tcp") || !strings.Contains(out, "22/filtered/tcp") {
		t.Errorf("SYN scan:\n%s", out)
	}
	for _, flags := range []string{"-sN", "-sF", "-sX"} { // an answer, RST, would say closed
		before := dropped(t, l, "connection_invalid") + dropped(t, l, "group_drop")
		out := scan(flags)
		if strings.Contains(out, "/closed/") || strings.Contains(out, "/open/tcp") {
			t.Errorf("%s:\n%s", flags, out)
		}
		if dropped(t, l, "connection_invalid")+dropped(t, l, "group_drop") == before {
			t.Errorf("%s: nothing is counted as dropped", flags)
		}
	}
	// An ACK may be of a connection older than our memory: where a rule lets one begin, the VM answers RST.
	if out := scan("-sA"); !strings.Contains(out, "80/unfiltered/tcp") || !strings.Contains(out, "22/filtered/tcp") {
		t.Errorf("ACK scan:\n%s", out)
	}
	for _, flags := range []string{"-sO", "-sU", "-sY"} { // protocols, UDP, SCTP
		args := []string{"nmap", "-n", "-Pn", "--max-retries", "0", "--host-timeout", "10s", flags, "10.0.1.10"}
		if flags != "-sO" {
			args = append(args, "-p", "80-84")
		} else {
			args = append(args, "-p", "0-255")
		}
		if out, err := command(world, args...); err != nil {
			t.Errorf("%s: %v\n%s", flags, err, out)
		}
	}
	ping(t, world, "10.0.1.10")
}
