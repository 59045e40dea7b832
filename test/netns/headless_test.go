package netns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// storeGone is how long the store is away. VIADUCT_STORE_GONE=1m is the long form.
func storeGone(t *testing.T) time.Duration {
	text := os.Getenv("VIADUCT_STORE_GONE")
	if text == "" {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("VIADUCT_STORE_GONE:", err)
	}
	return d
}

// The store is killed; meanwhile the agent is killed too, and started again without it. No packet of an established flow is lost, and
// none of new flows between devices that the host knows, before the restart of the agent and after it.
func TestStoreGone(t *testing.T) {
	l := twoSubnets(t)
	alice, mallory, carol := space(t, l, "alice"), space(t, l, "mallory"), space(t, l, "carol")
	h := &l.Hosts[0]
	agent := debug.NewClient(h.Socket())
	ping(t, alice, "10.0.2.10")
	eventually(t, "the network is kept on disk", func(context.Context) error {
		_, err := os.Stat(filepath.Join(h.RunDir, "state", disk.File))
		return err
	})

	away := storeGone(t)
	sendFlow(t, mallory, 1)
	before := receivedBy(t, carol)
	var sent traffic.FloodResult
	length := away + 4*time.Second
	flow, err := tools().Start(t.Context(), mallory, flowArgs(rate*int(length.Seconds()), length+10*time.Second)...)
	if err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+rate/2)

	if err := syscall.Kill(l.Server.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ping(t, alice, "10.0.2.10") // a new flow: the earlier one had another identifier
	kill(t, h)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		ping(t, alice, "10.0.2.10") // each is a new flow
	}
	s, err := agent.Stats(t.Context())
	if err != nil || s.StoreFollowed || s.Adopted == 0 {
		t.Errorf("without the store: %+v, %v", s, err)
	}
	if err := l.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store is followed", func(ctx context.Context) error {
		s, err := agent.Stats(ctx)
		if err == nil && !s.StoreFollowed {
			return fmt.Errorf("it is not: revision %d", s.Revision)
		}
		return err
	})
	if err := flow.Wait(&sent); err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+sent.Sent)
	ping(t, alice, "10.0.2.10")
}
