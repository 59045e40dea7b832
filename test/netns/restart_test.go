package netns

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// kill ends the agent at once and waits until it is gone.
func kill(t *testing.T, h *lab.Host) {
	t.Helper()
	if err := syscall.Kill(h.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "agent ends", func(context.Context) error {
		if err := syscall.Kill(h.PID, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is there: %v", h.PID, err)
		}
		return nil
	})
}

// While the agent is dead, and while the next one takes over, no packet of an established flow
// may be lost. A flow of numbered frames at a fixed rate shows it: TCP would hide a loss.
func TestAgentKilled(t *testing.T) {
	l := twoSubnets(t)
	alice, mallory, carol := space(t, l, "alice"), space(t, l, "mallory"), space(t, l, "carol")
	h := &l.Hosts[0]

	receive, err := tools().StartReady(t.Context(), space(t, l, "bob"), "tcp", "receive", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := tools().Start(t.Context(), alice, "tcp", "send", "10.0.2.10:5001", "--duration=6s")
	if err != nil {
		t.Fatal(err)
	}
	// The first frame makes the flow; what counts comes after it.
	sendFlow(t, mallory, 1)
	before := receivedBy(t, carol)
	var sent traffic.FloodResult
	flow, err := tools().Start(t.Context(), mallory, flowArgs(5*rate, 10*time.Second)...)
	if err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+rate/2)
	kill(t, h)
	awaitReceived(t, carol, receivedBy(t, carol)+rate) // a second without an agent
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := flow.Wait(&sent); err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+sent.Sent)

	s, err := debug.NewClient(h.Socket()).Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Adopted == 0 {
		t.Errorf("the next agent has adopted no flow: %+v", s)
	}
	var tcpSent, tcpReceived traffic.TCPResult
	if err := stream.Wait(&tcpSent); err != nil {
		t.Errorf("TCP across the restart: %v", err)
	}
	if err := receive.Wait(&tcpReceived); err != nil {
		t.Error(err)
	}
	if tcpSent.Bytes == 0 || tcpSent.Bytes != tcpReceived.Bytes {
		t.Errorf("TCP: %d bytes sent, %d received", tcpSent.Bytes, tcpReceived.Bytes)
	}
	ping(t, alice, "10.0.2.10") // and new flows are set up again
}

const rate = 5000 // frames per second

// flowArgs describe one flow to carol: a flood whose prefix of destinations holds one.
func flowArgs(count int, d time.Duration) []string {
	return []string{"flood", "--mode=destinations", "--target=10.0.2.66/32", "--rate=" + strconv.Itoa(rate), "--count=" + strconv.Itoa(count), "--duration=" + d.String()}
}

func sendFlow(t *testing.T, from ns.Space, count int) {
	t.Helper()
	if err := tools().Run(t.Context(), from, nil, flowArgs(count, 5*time.Second)...); err != nil {
		t.Fatal(err)
	}
}

// receivedBy counts the frames that a VM has received.
func receivedBy(t *testing.T, s ns.Space) uint64 {
	t.Helper()
	h, err := s.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.RxPackets
}

func awaitReceived(t *testing.T, s ns.Space, n uint64) {
	t.Helper()
	eventually(t, "frames arrive", func(context.Context) error {
		if got := receivedBy(t, s); got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}
