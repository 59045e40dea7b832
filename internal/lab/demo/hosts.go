package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// network is examples.TwoSubnets with another host, where Dave is on the red bridge.
var network = examples.TwoSubnets + `---
kind: host
name: h2
---
kind: port
name: dave
bridge: red
mac: 02:00:00:00:02:44
addresses: [10.0.2.44, "fd00:2::44"]
binding: {host: h2, interface: tap-dave}
---
kind: vm
name: dave
port: dave
`

// tunnelled are forwarded and known where the way is to another host.
func tunnelled(port string) []mark {
	return []mark{
		{"sim", "port " + port, "Forward(" + port + ")"},
		{"sim", "result", "forward"},
		{"xlate", "actions", "tunnel"},
		{"worker", "remember", "wildcard entry"},
		{"datapath", "install", "tunnel"},
		{"datapath", "execute", "tunnel"},
	}
}

var knownTunnelled = []mark{
	{"datapath", "datapath port", "one token taken"},
	{"flow", "wildcard table", "no simulation"},
	{"flow", "install", "tunnel"},
	{"datapath", "execute", "tunnel"},
}

// through does what must cross the tunnel, and wants the other host to have had nothing to decide.
func through(do func(context.Context, *story) (string, error)) func(context.Context, *story) (string, error) {
	return func(ctx context.Context, s *story) (string, error) {
		before, err := s.tunnel(ctx)
		if err != nil {
			return "", err
		}
		saw, err := do(ctx, s)
		if err != nil {
			return "", err
		}
		after, err := s.tunnel(ctx)
		if err != nil {
			return "", err
		}
		packets, misses := after.RxPackets-before.RxPackets, after.Admitted-before.Admitted
		if packets == 0 || misses != 0 {
			return "", fmt.Errorf("host %s: %d packets out of the tunnel, %d misses", s.other.Name, packets, misses)
		}
		return fmt.Sprintf("%s\n   host %s: %d packets out of the tunnel, %d misses", saw, s.other.Name, packets, misses), nil
	}
}

// tunnel is that of the other host.
func (s *story) tunnel(ctx context.Context) (debug.Port, error) {
	ports, err := debug.NewClient(s.other.Socket()).Ports(ctx)
	for _, p := range ports {
		if p.Name == "tunnel" {
			return p, err
		}
	}
	return debug.Port{}, errors.Join(err, fmt.Errorf("host %s has no tunnel", s.other.Name))
}

// move has Dave move to Alice's host while he downloads from her: nothing of it may be lost.
func (s *story) move(ctx context.Context, number int) error {
	fmt.Fprintf(s.Out, "%d. Dave downloads from Alice for 3 s, and moves to her host meanwhile\n\n", number)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dave, err := s.lab.VM("dave")
	if err != nil {
		return err
	}
	alice, err := s.lab.Space("alice")
	if err != nil {
		return err
	}
	receive, err := s.tools.StartReady(ctx, dave.Space, "tcp", "receive", "--duration=50s")
	if err != nil {
		return err
	}
	send, err := s.tools.Start(ctx, alice, "tcp", "send", "10.0.2.44:5001", "--duration=3s")
	if err != nil {
		return errors.Join(err, receive.Stop(nil))
	}
	time.Sleep(time.Second) // of downloading from the other host
	from, start := dave.Host, time.Now()
	err = s.lab.Move(ctx, dave, s.agent)
	took := time.Since(start)
	if err != nil {
		return errors.Join(err, send.Stop(nil), receive.Stop(nil))
	}
	var sent, received traffic.TCPResult
	if err := errors.Join(send.Wait(&sent), receive.Wait(&received)); err != nil {
		return err
	}
	if received.Bytes == 0 || sent.Bytes != received.Bytes {
		return fmt.Errorf("%d bytes were sent, %d arrived", sent.Bytes, received.Bytes)
	}
	fmt.Fprintf(s.Out, "   Dave: from %s to %s in %d ms; the download: %d MB, all that were sent, longest gap %.0f ms\n\n",
		from, dave.Host, took.Milliseconds(), received.Bytes/1e6, received.Gap)
	return nil
}
