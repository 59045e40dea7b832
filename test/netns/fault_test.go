package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
	"github.com/viaduct-net/viaduct/internal/topo/live"
)

// fault makes faults of a laboratory.
func fault(t *testing.T, l *lab.Lab, faults ...lab.Fault) {
	t.Helper()
	for _, f := range faults {
		if err := l.Break(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
}

func heal(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Heal(t.Context(), l.Faults...); err != nil {
		t.Fatal(err)
	}
}

// follows waits until all agents follow the store.
func follows(t *testing.T, l *lab.Lab) {
	t.Helper()
	for i := range l.Hosts {
		agent := debug.NewClient(l.Hosts[i].Socket())
		eventually(t, "host "+l.Hosts[i].Name+" follows the store", func(ctx context.Context) error {
			s, err := agent.Stats(ctx)
			if err == nil && !s.StoreFollowed {
				err = errors.New("it does not")
			}
			return err
		})
	}
}

// The store is away for longer than a host may be silent: because it is dead, for a minute; because it is silent, and ends all sessions when it goes
// on; or because no host reaches it, so that it ends theirs. Of an established flow between two hosts no packet is lost, nor of new ones between ports
// that are known, then and when it is back.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		away   time.Duration
		faults []lab.Fault
	}{
		{"dead", time.Minute, []lab.Fault{{Kind: lab.Kill, Names: []string{lab.Store}}}},
		{"silent", live.TTL + 3*time.Second, []lab.Fault{{Kind: lab.Pause, Names: []string{lab.Store}}}},
		{"cut off", live.TTL + 3*time.Second, []lab.Fault{{Kind: lab.Partition, Names: []string{"h1", lab.Store}}, {Kind: lab.Partition, Names: []string{"h2", lab.Store}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			storeAway(t, c.away, c.faults...)
		})
	}
}

func storeAway(t *testing.T, away time.Duration, faults ...lab.Fault) {
	const perSecond, back = 500, live.TTL + 3*time.Second
	l := up(t, examples.TwoHosts)
	alice, dave := space(t, l, "alice"), space(t, l, "dave")
	ping(t, alice, "10.0.2.11")
	ping(t, dave, "10.0.1.10")
	time.Sleep(live.TTL + 2*time.Second) // a host that has begun just now takes nobody for dead
	flow := func(count int, d time.Duration) []string {
		return []string{"flood", "--mode=destinations", "--target=10.0.2.11/32", fmt.Sprint("--rate=", perSecond), fmt.Sprint("--count=", count), "--duration=" + d.String()}
	}
	if err := tools().Run(t.Context(), alice, nil, flow(1, 5*time.Second)...); err != nil { // which makes the flow
		t.Fatal(err)
	}
	before, length := receivedBy(t, dave), away+back
	established, err := tools().Start(t.Context(), alice, flow(perSecond*int(length.Seconds()), length+20*time.Second)...)
	if err != nil {
		t.Fatal(err)
	}
	talk := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			ping(t, alice, "10.0.2.11") // each is a new flow
			ping(t, dave, "10.0.1.10")
		}
	}
	fault(t, l, faults...)
	talk(away)
	for i := range l.Hosts { // else the store was not away for long enough, and this shows nothing
		if b, err := os.ReadFile(l.Hosts[i].Log); err != nil || !bytes.Contains(b, []byte("other hosts may take this one for dead")) {
			t.Errorf("host %s has its session still, %v", l.Hosts[i].Name, err)
		}
	}
	heal(t, l)
	follows(t, l)
	talk(back)
	var sent traffic.FloodResult
	if err := established.Wait(&sent); err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, dave, before+sent.Sent)
	for i := range l.Hosts {
		s, err := debug.NewClient(l.Hosts[i].Socket()).Stats(t.Context())
		if err != nil || s.Dropped[drop.Inactive.String()] != 0 {
			t.Errorf("host %s took the other one for dead: dropped %v, %v", l.Hosts[i].Name, s.Dropped, err)
		}
	}
}

// Two hosts that do not reach each other lose what is between them and nothing else: both live, and what each has by itself goes on.
// When they do again, so does a stream.
func TestPartition(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	alice, bob := space(t, l, "alice"), space(t, l, "bob")
	receive, err := tools().StartReady(t.Context(), bob, "tcp", "receive", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	send, err := tools().Start(t.Context(), alice, "tcp", "send", "10.0.1.11:5001", "--duration=5s")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream runs", func(context.Context) error {
		if p := tunnelPort(t, &l.Hosts[1]); p.RxPackets < 100 {
			return fmt.Errorf("%d packets", p.RxPackets)
		}
		return nil
	})
	fault(t, l, lab.Fault{Kind: lab.Partition, Names: []string{"h1", "h2"}})
	if out, err := command(alice, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "10.0.2.11"); err == nil {
		t.Errorf("dave answers across a partition:\n%s", out)
	}
	ping(t, alice, "10.0.2.10") // carol is on her host
	ping(t, bob, "10.0.2.11")   // dave is on his
	follows(t, l)
	heal(t, l)
	allArrived(t, send, receive)
	ping(t, alice, "10.0.2.11")
}

// A host that alone does not reach the store goes on with all that it knows, but is dead for the others; once it reaches the store, it is not.
func TestHostWithoutStore(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	alice, bob := space(t, l, "alice"), space(t, l, "bob")
	ping(t, alice, "10.0.1.11")
	fault(t, l, lab.Fault{Kind: lab.Partition, Names: []string{"h1", lab.Store}})
	ping(t, alice, "10.0.2.11") // a new flow
	takenForDead(t, bob, "10.0.1.10", &l.Hosts[1])
	ping(t, alice, "10.0.2.10") // carol is on her host
	heal(t, l)
	reaches(t, bob, "10.0.1.10")
	follows(t, l)
	ping(t, alice, "10.0.1.11")
}
