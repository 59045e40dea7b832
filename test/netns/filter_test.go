package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// apply hands documents to the laboratory's server.
func apply(t *testing.T, l *lab.Lab, text string) {
	t.Helper()
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := parse(t, text).Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// applyEverywhere applies a document and waits until all hosts have it: for tests that see what a change forbids.
func applyEverywhere(t *testing.T, l *lab.Lab, text string) {
	t.Helper()
	apply(t, l, text)
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, revision, err := c.List(t.Context(), model.KindHost) // a later one is as good
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all hosts have the change", func(ctx context.Context) error {
		a, err := c.Applied(ctx, revision)
		if err == nil && a.Applied < len(l.Hosts) {
			err = fmt.Errorf("%d of %d have it", a.Applied, len(l.Hosts))
		}
		return err
	})
}

// echo serves, in a namespace, connections that give back what they get.
func echo(t *testing.T, s ns.Space, address string) {
	t.Helper()
	var ln net.Listener
	err := s.Do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 1500)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// dial connects from a namespace.
func dial(t *testing.T, s ns.Space, address string, patience time.Duration) (net.Conn, error) {
	t.Helper()
	var c net.Conn
	err := s.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", address, patience)
		return err
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// exchange sends a byte and waits for it to come back.
func exchange(c net.Conn, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// hits reads how often a rule was met.
func hits(t *testing.T, l *lab.Lab, rule string) uint64 {
	t.Helper()
	rs, err := debug.NewClient(l.Hosts[0].Socket()).Rules(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if r.Name == rule {
			return r.Hits
		}
	}
	t.Fatalf("the agent has no rule %s", rule)
	return 0
}

const (
	closed = `
kind: chain
name: bob-in
---
kind: rule
name: no-8080
chain: bob-in
position: 10
match: {proto: tcp, dst_ports: 8080, not: [src_ports], src_ports: 1}
action: %s
---
kind: port
name: bob
bridge: red
mac: 02:00:00:00:02:10
addresses: [10.0.2.10, "fd00:2::10"]
outbound_filter: bob-in
`
	timeoutWanted = 300 * time.Millisecond
	patience      = 30 * time.Second
)

// TestFilter: a rule that drops a TCP port stops the connections that use it, at once, and no others; when the
// rule accepts again, they go on.
func TestFilter(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	alice, bob := space(t, l, "alice"), space(t, l, "bob")
	for _, host := range []string{"10.0.2.10", "[fd00:2::10]"} {
		t.Run(host, func(t *testing.T) {
			apply(t, l, fmt.Sprintf(closed, "accept"))
			echo(t, bob, host+":8080")
			echo(t, bob, host+":9090")
			connections := map[string]net.Conn{}
			for _, port := range []string{"8080", "9090"} {
				c, err := dial(t, alice, host+":"+port, patience)
				if err != nil {
					t.Fatal(err)
				}
				connections[port] = c
				for range 3 { // established: both directions have flows
					if err := exchange(c, patience); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := dropped(t, l, "filter_drop")
			apply(t, l, fmt.Sprintf(closed, "drop"))
			eventually(t, "the drop is counted by its name", func(context.Context) error {
				if err := exchange(connections["8080"], timeoutWanted); !errors.Is(err, os.ErrDeadlineExceeded) {
					return fmt.Errorf("the established connection goes on: %v", err)
				}
				if dropped(t, l, "filter_drop") == before {
					return errors.New("no packet counted as filter_drop")
				}
				return nil
			})
			if _, err := dial(t, alice, host+":8080", timeoutWanted); err == nil {
				t.Error("a new connection passes the filter")
			}
			if n := hits(t, l, "no-8080"); n == 0 {
				t.Error("the rule has no hits")
			}
			if err := exchange(connections["9090"], patience); err != nil {
				t.Errorf("the other port is affected: %v", err)
			}
			apply(t, l, fmt.Sprintf(closed, "accept"))
			c, err := dial(t, alice, host+":8080", patience)
			if err != nil {
				t.Fatalf("after the rule accepts: %v", err)
			}
			if err := exchange(c, patience); err != nil {
				t.Errorf("after the rule accepts: %v", err)
			}
		})
	}
}
