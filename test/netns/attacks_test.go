package netns

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// Every attack of the suite, in short: whatever two rogues send, the victim loses no new flow, every packet ends in one way, every
// token comes back, and no ring overflows. How long anything takes is for make bench-attacks.
func TestAttacks(t *testing.T) {
	const rogues = 2
	l := up(t, attacks.Document(rogues))
	alice := space(t, l, "alice")
	responder, err := tools().StartReady(t.Context(), space(t, l, "bob"), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = responder.Stop(nil) }() // it has served its purpose, whatever it says
	probe := func(t *testing.T, d time.Duration) {
		t.Helper()
		var r traffic.ProbeResult
		// The pace leaves the victim tokens for half a second in which the machine does other things.
		if err := tools().Run(t.Context(), alice, &r, "probe", fmt.Sprintf("10.0.2.10:%d", traffic.EchoPort),
			"--interval=20ms", "--timeout=5s", "--duration="+d.String()); err != nil {
			t.Fatal(err)
		}
		if r.Lost != 0 || r.Sent == 0 {
			t.Errorf("%d of %d new flows were lost", r.Lost, r.Sent)
		}
	}
	probe(t, 200*time.Millisecond) // nobody attacks
	agent := debug.NewClient(l.Hosts[0].Socket())
	for i, a := range attacks.All {
		t.Run(a.Name, func(t *testing.T) {
			if a.Policy {
				apply(t, l, attacks.PolicyDocument())
			}
			before := rogueFrames(t, agent, a.Free)
			running, err := a.Start(t.Context(), tools(), l.Space, attacks.Force{Rogues: rogues, Rate: 60_000, Duration: time.Minute, Nice: 19, First: uint32(i) << 20})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "frames of the attack arrive", func(context.Context) error {
				if n := rogueFrames(t, agent, a.Free) - before; n < 1000 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			probe(t, 800*time.Millisecond)
			if _, err := running.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	balanced(t, l)
	ports, err := agent.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if n := p.Drops["ring_full"]; n != 0 {
			t.Errorf("port %s: %d misses found no room in the ring", p.Name, n)
		}
		if n := p.Drops["internal"]; n != 0 {
			t.Errorf("port %s: the agent has met %d faults of its own", p.Name, n)
		}
	}
}

// rogueFrames is how many frames have come from rogues.
func rogueFrames(t *testing.T, agent *debug.Client, free bool) (n uint64) {
	t.Helper()
	ports, err := agent.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if p.Name == attacks.Rogue(0, free) {
			n += p.RxPackets
		}
	}
	return n
}
