package netns

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
	"github.com/viaduct-net/viaduct/internal/topo/live"
)

// VMs of two hosts, over an underlay of each family.
func TestHosts(t *testing.T) {
	t.Parallel()
	for _, u := range []struct {
		name    string
		replace []string
	}{
		{"IPv4", nil},
		{"IPv6", []string{"192.168.77.1", "fd77::1", "192.168.77.2", "fd77::2"}},
	} {
		t.Run(u.name, func(t *testing.T) {
			l := up(t, examples.TwoHosts, u.replace...)
			alice := space(t, l, "alice")
			var before []debug.Port // what VMs of a host that is there send to one that begins only now may be dropped
			for i := range l.Hosts {
				before = append(before, tunnelPort(t, &l.Hosts[i]))
			}
			for _, c := range []struct{ name, address string }{
				{"same bridge", "10.0.1.11"}, {"same bridge6", "fd00:1::11"},
				{"behind the router", "10.0.2.11"}, {"behind the router6", "fd00:2::11"},
			} {
				t.Run("ping "+c.name, func(t *testing.T) { ping(t, alice, c.address) })
				t.Run("ping as long as it gets "+c.name, func(t *testing.T) {
					size := lab.OverlayMTU - 28
					if c.address[0] == 'f' {
						size = lab.OverlayMTU - 48
					}
					ping(t, alice, c.address, "-M", "do", "-s", fmt.Sprint(size))
				})
				t.Run("ping fragmented "+c.name, func(t *testing.T) { ping(t, alice, c.address, "-s", "4000") })
			}
			for _, address := range []string{"10.0.2.11:5001", "[fd00:1::11]:5001"} {
				t.Run("tcp "+address, func(t *testing.T) {
					receiver := "dave"
					if address[0] == '[' {
						receiver = "bob"
					}
					receive, err := tools().StartReady(t.Context(), space(t, l, receiver), "tcp", "receive", "--duration=30s")
					if err != nil {
						t.Fatal(err)
					}
					var sent, received traffic.TCPResult
					if err := tools().Run(t.Context(), alice, &sent, "tcp", "send", address, "--duration=500ms"); err != nil {
						t.Error(err)
					}
					if err := receive.Wait(&received); err != nil {
						t.Error(err)
					}
					if sent.Bytes == 0 || sent.Bytes != received.Bytes {
						t.Errorf("%d bytes sent, %d received", sent.Bytes, received.Bytes)
					}
				})
			}
			// Whoever decided has decided for both: nothing that came out of a tunnel was a miss.
			for i := range l.Hosts {
				was := &before[i]
				if p := tunnelPort(t, &l.Hosts[i]); p.RxPackets == was.RxPackets || p.Admitted != was.Admitted || !maps.Equal(p.Drops, was.Drops) {
					t.Errorf("host %s: %d packets out of the tunnel, %d misses, drops %v, before %v", l.Hosts[i].Name, p.RxPackets-was.RxPackets, p.Admitted-was.Admitted, p.Drops, was.Drops)
				}
			}
		})
	}
}

func tunnelPort(t *testing.T, h *lab.Host) debug.Port {
	t.Helper()
	ports, err := debug.NewClient(h.Socket()).Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if p.Name == "tunnel" {
			return p
		}
	}
	t.Fatalf("host %s has no tunnel", h.Name)
	return debug.Port{}
}

// An agent that is killed while its VM talks with one on another host loses nothing, and adopts the flows into the tunnel.
func TestHostsKilled(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	receive, err := tools().StartReady(t.Context(), space(t, l, "bob"), "tcp", "receive", "--duration=30s")
	if err != nil {
		t.Fatal(err)
	}
	send, err := tools().Start(t.Context(), space(t, l, "alice"), "tcp", "send", "10.0.1.11:5001", "--duration=4s")
	if err != nil {
		t.Fatal(err)
	}
	established := func(ctx context.Context) error {
		// Few enough that an emulated guest, where 4 seconds have been 851 packets, sends them long before the end.
		if p := tunnelPort(t, &l.Hosts[0]); p.TxPackets < 100 {
			return fmt.Errorf("%d packets sent", p.TxPackets)
		}
		return nil
	}
	eventually(t, "TCP flows", established)
	for i := range l.Hosts {
		kill(t, &l.Hosts[i])
	}
	for i := range l.Hosts {
		if err := l.StartAgent(t.Context(), &l.Hosts[i]); err != nil {
			t.Fatal(err)
		}
	}
	allArrived(t, send, receive)
	ping(t, space(t, l, "alice"), "10.0.2.11")
}

// A host whose agent is gone for good is dead within ten seconds, longer only by what a busy machine makes of it: what is for it is dropped by name
// where it enters. Once its agent is back, so is the host.
func TestHostDies(t *testing.T) {
	t.Parallel()
	l := up(t, examples.TwoHosts)
	alice, h2 := space(t, l, "alice"), &l.Hosts[1]
	ping(t, alice, "10.0.1.11")
	time.Sleep(live.TTL + 2*time.Second) // a host that has begun just now takes nobody for dead
	start, late := time.Now(), lateness(t)
	kill(t, h2)
	takenForDead(t, alice, "10.0.1.11", &l.Hosts[0])
	took, worst := time.Since(start), late()
	// The session's end goes through the store, the other agent's watch and its workers: some five turns to wait for.
	if bound := 10*time.Second + 5*worst; took > bound {
		t.Errorf("dead after %s, want %s at most", took.Round(100*time.Millisecond), bound.Round(100*time.Millisecond))
	}
	t.Logf("dead after %s; this process was woken %s late at worst", took.Round(100*time.Millisecond), worst.Round(time.Millisecond))
	ping(t, alice, "10.0.2.10") // on the same host as she
	if err := l.StartAgent(t.Context(), h2); err != nil {
		t.Fatal(err)
	}
	reaches(t, alice, "10.0.1.11")
}

// lateness watches how late this process is woken, until its result is called, which is the most that it has been: so long everybody on this machine
// may have to wait for a CPU.
func lateness(t *testing.T) (worst func() time.Duration) {
	const nap = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			asleep := time.Now()
			time.Sleep(nap)
			most = max(most, time.Since(asleep)-nap)
		}
		late <- most
	}()
	return func() time.Duration {
		cancel()
		return <-late
	}
}

// takenForDead waits until what a VM sends to one of another host is dropped by its own because the other one is dead.
func takenForDead(t *testing.T, from ns.Space, address string, own *lab.Host) {
	t.Helper()
	agent := debug.NewClient(own.Socket())
	eventually(t, "the host of "+address+" is dead", func(ctx context.Context) error {
		if out, err := command(from, "ping", "-n", "-c", "1", "-W", "0.2", address); err == nil {
			return fmt.Errorf("its VM answers:\n%s", out)
		}
		s, err := agent.Stats(ctx)
		if err == nil && s.Dropped[drop.Inactive.String()] == 0 {
			err = fmt.Errorf("dropped %v", s.Dropped)
		}
		return err
	})
}

// Nobody has told the network dave's addresses: his answer to the router's ARP request enters at his own host, and is learnt there.
func TestHostsLearn(t *testing.T) {
	t.Parallel()
	const known = "mac: 02:00:00:00:02:11\naddresses: [10.0.2.11, \"fd00:2::11\"]\n"
	l := up(t, examples.TwoHosts, known, "",
		"kind: vm\nname: dave\nport: dave\n", "kind: vm\nname: dave\nport: dave\nmac: 02:00:00:00:02:11\naddresses: [10.0.2.11/24, \"fd00:2::11/64\"]\ngateways: [10.0.2.1, \"fd00:2::1\"]\n")
	ping(t, space(t, l, "alice"), "10.0.2.11")
	ping(t, space(t, l, "alice"), "fd00:2::11")
	ping(t, space(t, l, "carol"), "10.0.2.11")
	ping(t, space(t, l, "dave"), "10.0.1.10")
}
