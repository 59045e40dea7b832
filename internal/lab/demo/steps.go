package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// stepTime bounds a step: there is nothing in it that takes a second, TCP excepted.
const stepTime = 20 * time.Second

// step is something that alice does, and what must become of one of its packets.
type step struct {
	title string
	do    func(context.Context, *story) (string, error) // says what alice saw
	marks []mark
}

var steps = []step{
	{"Alice asks who has her gateway, 10.0.1.1 (ARP); the bridge knows, and answers for it",
		ping("10.0.1.1"), join(up("alice"), []mark{{"sim", "bridge blue", "ARP table finds 10.0.1.1"}}, consumed("alice", "alice"))},
	{"She pings the gateway; the router answers the echo request itself",
		ping("10.0.1.1"), join(up("alice"), []mark{
			{"sim", "bridge blue", "MAC table finds"}, {"sim", "port tenant-blue", "ingress"}, {"sim", "router tenant", "echo reply"}}, consumed("tenant-blue", "alice"))},
	{"She pings Bob, on the other subnet; a flow is installed, so later packets stay in the kernel",
		ping("10.0.2.10"), join(up("alice"), routed, forwarded("bob"))},
	{"She sends Bob a TCP stream; what was decided for the ping did not depend on the protocol, so nothing is simulated",
		stream("bob", "10.0.2.10:5001"), known},
	{"IPv6: she asks who has fd00:1::1 (neighbour solicitation); the bridge answers",
		ping("fd00:1::1"), join(up("alice"), []mark{{"sim", "bridge blue", "ND table finds fd00:1::1"}}, consumed("alice", "alice"))},
	{"IPv6: she pings Bob",
		ping("fd00:2::10"), join(up("alice"), routed, forwarded("bob"))},
	{"IPv6: she sends Bob a TCP stream; here the bridge had to look at the protocol, for it answers solicitations: simulated anew",
		stream("bob", "[fd00:2::10]:5001"), join(up("alice"), routed, forwarded("bob"))},
	{"She pings Dave, on Bob's subnet and on another host: simulated here; the tunnel's key names his port, so his host decides nothing",
		through(ping("10.0.2.44")), join(up("alice"), routed, tunnelled("dave"))},
	{"She sends Dave a TCP stream through the tunnel",
		through(stream("dave", "10.0.2.44:5001")), knownTunnelled},
}

// take does a step while the agent streams the trees of alice's packets, and shows the one that it is about.
func (s *story) take(ctx context.Context, st step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	stream, err := debug.NewClient(s.agent.Socket()).Watch(ctx, "alice", 0)
	if err != nil {
		return err
	}
	defer stream.Close()
	found := make(chan error, 1)
	var tree *trace.Node
	go func() {
		var err error
		tree, err = search(stream, st.marks)
		found <- err
	}()
	saw, err := st.do(ctx, s)
	if err != nil {
		cancel()
		return errors.Join(err, <-found)
	}
	if err := <-found; err != nil {
		return err
	}
	fmt.Fprintln(s.Out)
	if err := tree.Render(s.Out); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "\n   %s\n", saw)
	return nil
}

// search reads trees until one has all the marks. If none has, the error tells what the nearest one lacks.
func search(stream *debug.Trees, marks []mark) (*trace.Node, error) {
	var nearest *trace.Node
	missing := marks
	for {
		tree, err := stream.Next()
		if err != nil {
			if nearest == nil {
				return nil, fmt.Errorf("no packet was traced: %w", err)
			}
			var b strings.Builder
			_ = nearest.Render(&b) // a strings.Builder takes everything
			return nil, fmt.Errorf("no packet took all the stages: the nearest lacks %q:\n%s", missing[0], b.String())
		}
		left := follow(tree, marks)
		if len(left) == 0 {
			return tree, nil
		}
		if nearest == nil || len(left) < len(missing) {
			nearest, missing = tree, left
		}
	}
}

// ping sends three echo requests, and wants a reply to each: more, which it sends while it waits (-w), do not count. The first step finds alice's neighbour
// table empty, so that her kernel asks before it sends.
func ping(address string) func(context.Context, *story) (string, error) {
	return func(ctx context.Context, s *story) (string, error) {
		vm, err := s.lab.Space("alice")
		if err != nil {
			return "", err
		}
		if err := forget(vm); err != nil {
			return "", err
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, "ping", "-n", "-c", "3", "-i", "0.2", "-w", "20", address)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := vm.Start(cmd); err != nil {
			return "", err
		}
		if err := cmd.Wait(); err != nil {
			return "", fmt.Errorf("ping %s: %w\n%s", address, err, out.Bytes())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		for i := 1; i <= 3; i++ {
			if !strings.Contains(out.String(), fmt.Sprintf(": icmp_seq=%d ttl=", i)) {
				return "", fmt.Errorf("replies are missing:\n%s", out.Bytes())
			}
		}
		return "Alice: " + lines[1], nil
	}
}

// stream sends a VM a second of TCP, and wants all of it to arrive.
func stream(name, address string) func(context.Context, *story) (string, error) {
	return func(ctx context.Context, s *story) (string, error) {
		alice, err := s.lab.Space("alice")
		if err != nil {
			return "", err
		}
		to, err := s.lab.Space(name)
		if err != nil {
			return "", err
		}
		receive, err := s.tools.StartReady(ctx, to, "tcp", "receive", "--duration=15s")
		if err != nil {
			return "", err
		}
		var sent, received traffic.TCPResult
		err = s.tools.Run(ctx, alice, &sent, "tcp", "send", address, "--duration=1s")
		if err != nil {
			return "", errors.Join(err, receive.Stop(nil))
		}
		if err := receive.Wait(&received); err != nil {
			return "", err
		}
		if sent.Bytes != received.Bytes {
			return "", fmt.Errorf("%d bytes were sent, %d arrived", sent.Bytes, received.Bytes)
		}
		return fmt.Sprintf("%s: %d MB, %.1f Gbit/s", strings.ToUpper(name[:1])+name[1:], received.Bytes/1e6, received.Gbit), nil
	}
}
