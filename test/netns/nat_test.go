package netns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// What world has no route to cannot be answered by it: whatever works here was translated.
func TestNAT(t *testing.T) {
	t.Parallel()
	translated(t, laboratory(t, examples.Gateway))
}

// twoHostGateway has bob and world on another host than alice and carol: the answers to what is translated enter there.
func twoHostGateway(t *testing.T) *lab.Lab {
	t.Helper()
	return up(t, examples.Gateway, "{host: h1, interface: tap-world}", "{host: h2, interface: tap-world}", "{host: h1, interface: tap-bob}", "{host: h2, interface: tap-bob}")
}

func TestNATAcrossHosts(t *testing.T) {
	t.Parallel()
	translated(t, twoHostGateway(t))
}

func translated(t *testing.T, l *lab.Lab) {
	alice, bob, carol, world := space(t, l, "alice"), space(t, l, "bob"), space(t, l, "carol"), space(t, l, "world")

	t.Run("masquerade", func(t *testing.T) {
		ping(t, alice, "203.0.113.100")
		stream(t, alice, world, "203.0.113.100:5001")
	})
	t.Run("echo identifiers that collide", func(t *testing.T) {
		ping(t, alice, "203.0.113.100", "-e", "77")
		ping(t, alice, "203.0.113.100", "-e", "77", "-I", "10.0.1.10")
	})
	t.Run("floating IP in", func(t *testing.T) {
		ping(t, world, "203.0.113.11")
		ping(t, world, "2001:db8::11")
		stream(t, world, bob, "203.0.113.11:5001")
	})
	t.Run("floating IP out", func(t *testing.T) {
		ping(t, bob, "203.0.113.100")
		ping(t, bob, "2001:db8::100")
	})
	t.Run("hairpin between floating IPs", func(t *testing.T) {
		ping(t, bob, "203.0.113.12")
		stream(t, carol, bob, "203.0.113.11:5001")
	})
	t.Run("hairpin from behind the masquerade", func(t *testing.T) {
		ping(t, alice, "203.0.113.11")
		stream(t, alice, bob, "203.0.113.11:5001")
	})
	t.Run("fragments", func(t *testing.T) {
		ping(t, world, "203.0.113.11", "-s", "4000")  // to a floating IP
		ping(t, world, "2001:db8::11", "-s", "4000")  // of IPv6
		ping(t, alice, "203.0.113.100", "-s", "4000") // masqueraded, and the answer
		ping(t, alice, "203.0.113.11", "-s", "4000")  // turned round
		echoDatagrams(t, world)
		echoDatagrams(t, bob)
		datagrams(t, alice, "203.0.113.100", 8192)
		datagrams(t, world, "203.0.113.11", 8192)
		datagrams(t, world, "2001:db8::11", 8192)
	})
	t.Run("errors are rewritten inside", func(t *testing.T) {
		// Nobody listens: world's port unreachable reaches alice's socket only if the quote names her own address and port.
		out, err := command(alice, "bash", "-c", "exec 3<>/dev/udp/203.0.113.100/9; echo x >&3; sleep 0.5; echo y >&3")
		if err == nil || !strings.Contains(out, "refused") {
			t.Errorf("want the connection refused: %v\n%s", err, out)
		}
	})
	t.Run("nobody gets in", func(t *testing.T) {
		if out, err := command(world, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.10"); err == nil {
			t.Errorf("answered:\n%s", out)
		}
	})
}

// A masqueraded connection outlives the agent: the next one finds its translation in the flows.
func TestNATSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	survives(t, laboratory(t, examples.Gateway), 0)
}

// Across hosts either agent may be the one that ends: where the connection was translated, or where its answers enter.
func TestNATSurvivesEitherAgent(t *testing.T) {
	t.Parallel()
	l := twoHostGateway(t)
	for i := range l.Hosts {
		t.Run(l.Hosts[i].Name, func(t *testing.T) { survives(t, l, i) })
	}
}

func survives(t *testing.T, l *lab.Lab, host int) {
	alice, world := space(t, l, "alice"), space(t, l, "world")
	h := &l.Hosts[host]
	receive, err := tools().StartReady(t.Context(), world, "tcp", "receive", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	send, err := tools().Start(t.Context(), alice, "tcp", "send", "203.0.113.100:5001", "--duration=6s")
	if err != nil {
		t.Fatal(err)
	}
	before := receivedBy(t, world)
	awaitReceived(t, world, before+100)
	kill(t, h)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connections are known again", func(ctx context.Context) error {
		s, err := debug.NewClient(h.Socket()).Stats(ctx)
		if err == nil && s.Connections == 0 {
			err = fmt.Errorf("none, %d flows adopted", s.Adopted)
		}
		return err
	})
	allArrived(t, send, receive)
	ping(t, alice, "203.0.113.100")
}

// allArrived waits for both ends of a stream, of which all that was sent must have come, and returns what came.
func allArrived(t *testing.T, send, receive *tool.Process) (received traffic.TCPResult) {
	t.Helper()
	var sent traffic.TCPResult
	if err := send.Wait(&sent); err != nil {
		t.Error(err)
	}
	if err := receive.Wait(&received); err != nil {
		t.Error(err)
	}
	if sent.Bytes == 0 || sent.Bytes != received.Bytes {
		t.Errorf("%d bytes sent, %d received", sent.Bytes, received.Bytes)
	}
	return received
}

// stream sends TCP for a moment and compares what arrives.
func stream(t *testing.T, from, to ns.Space, address string) {
	t.Helper()
	receive, err := tools().StartReady(t.Context(), to, "tcp", "receive", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	var sent, received traffic.TCPResult
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := tools().Run(ctx, from, &sent, "tcp", "send", address, "--duration=300ms"); err != nil {
		t.Error(err)
	}
	if err := receive.Wait(&received); err != nil {
		t.Error(err)
	}
	if sent.Bytes == 0 || sent.Bytes != received.Bytes {
		t.Errorf("%d bytes sent, %d received", sent.Bytes, received.Bytes)
	}
}
