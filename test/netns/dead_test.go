package netns

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// twoUplinks is a VM on h1 that reaches 9.9.9.9 by way of h2, and, when that is dead, of h3.
const twoUplinks = `
kind: lab
name: uplinks
---
{kind: tunnel_zone, name: rack}
---
{kind: host, name: h1, tunnels: [{zone: rack, address: 192.168.87.1}]}
---
{kind: host, name: h2, tunnels: [{zone: rack, address: 192.168.87.2}]}
---
{kind: host, name: h3, tunnels: [{zone: rack, address: 192.168.87.3}]}
---
{kind: bridge, name: blue}
---
{kind: router, name: tenant}
---
{kind: port, name: tenant-blue, router: tenant, mac: "02:00:00:00:01:01", addresses: [10.0.1.1/24], peer: blue-uplink}
---
{kind: port, name: blue-uplink, bridge: blue}
---
{kind: port, name: alice, bridge: blue, mac: "02:00:00:00:01:10", addresses: [10.0.1.10], binding: {host: h1, interface: tap-alice}}
---
{kind: port, name: up1, router: tenant, mac: "02:00:00:00:03:01", addresses: [198.51.100.1/24], binding: {host: h2, interface: tap-up1}}
---
{kind: port, name: up2, router: tenant, mac: "02:00:00:00:04:01", addresses: [198.51.101.1/24], binding: {host: h3, interface: tap-up2}}
---
{kind: route, name: r1, router: tenant, destination: 9.9.9.9/32, next_hop: port, gateway: 198.51.100.2, port: up1, weight: 1}
---
{kind: route, name: r2, router: tenant, destination: 9.9.9.9/32, next_hop: port, gateway: 198.51.101.2, port: up2, weight: 100}
---
{kind: vm, name: alice, port: alice}
---
{kind: vm, name: gw1, port: up1, mac: "02:00:00:00:03:02", addresses: [198.51.100.2/24], gateways: [198.51.100.1]}
---
{kind: vm, name: gw2, port: up2, mac: "02:00:00:00:04:02", addresses: [198.51.101.2/24], gateways: [198.51.101.1]}
`

// A host is dead, and another route has taken over. An agent that is killed and started again, with the store there or without, goes on with
// that: of an established flow over the other route no packet is lost, nor of new ones.
func TestRestartBesideDeadHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		first []lab.Fault
	}{
		{"store there", nil},
		{"store away", []lab.Fault{{Kind: lab.Kill, Names: []string{lab.Store}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			restartBesideDeadHost(t, c.first...)
		})
	}
}

func restartBesideDeadHost(t *testing.T, first ...lab.Fault) {
	l := laboratory(t, twoUplinks)
	alice, gw2, h1 := space(t, l, "alice"), space(t, l, "gw2"), &l.Hosts[0]
	for _, name := range []string{"gw1", "gw2"} {
		if _, err := command(space(t, l, name), "ip", "address", "add", "9.9.9.9/32", "dev", "lo"); err != nil {
			t.Fatal(err)
		}
	}
	ping(t, alice, "9.9.9.9")
	was := receivedBy(t, gw2)
	fault(t, l, lab.Fault{Kind: lab.Partition, Names: []string{"h2", "h1"}}, lab.Fault{Kind: lab.Partition, Names: []string{"h2", "h3"}},
		lab.Fault{Kind: lab.Partition, Names: []string{"h2", lab.Store}}, lab.Fault{Kind: lab.Kill, Names: []string{"h2"}})
	reaches(t, alice, "9.9.9.9")
	if receivedBy(t, gw2) == was {
		t.Fatal("the route has not changed")
	}
	eventually(t, "what h1 knows is kept", func(context.Context) error {
		s, err := disk.Read(filepath.Join(h1.RunDir, "state"), "h1")
		if err == nil && (len(s.Dead) != 1 || len(s.Learnt) != 1) {
			err = fmt.Errorf("dead are %v; other hosts have learnt %v", s.Dead, s.Learnt)
		}
		return err
	})

	const each, count = 20 * time.Millisecond, 400
	established, ended := "", make(chan error, 1)
	go func() {
		var err error
		established, err = command(alice, "ping", "-n", "-i", fmt.Sprint(each.Seconds()), "-c", fmt.Sprint(count), "-w", "30", "9.9.9.9")
		ended <- err
	}()
	before := receivedBy(t, gw2)
	awaitReceived(t, gw2, before+5)
	fault(t, l, first...)
	kill(t, h1)
	start := time.Now()
	if err := l.StartAgent(t.Context(), h1); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(start).Round(time.Millisecond))
	for running := true; running; {
		ping(t, alice, "9.9.9.9") // each is a new flow
		select {
		case err := <-ended:
			running = false
			heal(t, l) // what is at rest at the end has to be there
			for i := 1; i <= count; i++ {
				if !strings.Contains(established, fmt.Sprintf(": icmp_seq=%d ttl=", i)) {
					t.Fatalf("echo request %d of the established flow is not answered: %v\n%s", i, err, established[max(0, len(established)-500):])
				}
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
}
