package netns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// exits is a router with two ways out, on two hosts, in one port group: gw1 and gw2 are the two ends of one network outside. What alice, who may only
// begin connections, sends leaves by up1; outside it has become gw2's, who answers by up2.
const exits = `
kind: lab
name: exits
---
kind: tunnel_zone
name: rack
---
kind: host
name: h1
tunnels: [{zone: rack, address: 192.168.77.1}]
---
kind: host
name: h2
tunnels: [{zone: rack, address: 192.168.77.2}]
---
kind: security_group
name: asks
---
kind: security_group_rule
name: asks-out
security_group: asks
direction: egress
---
kind: port_group
name: exits
---
kind: bridge
name: blue
---
kind: router
name: tenant
---
kind: port
name: tenant-blue
router: tenant
mac: 02:00:00:00:01:01
addresses: [10.0.1.1/24]
peer: blue-uplink
---
kind: port
name: blue-uplink
bridge: blue
---
kind: port
name: alice
bridge: blue
mac: 02:00:00:00:01:10
addresses: [10.0.1.10]
port_security: true
security_groups: [asks]
binding: {host: h1, interface: tap-alice}
---
kind: port
name: up1
router: tenant
mac: 02:00:00:00:03:01
addresses: [198.51.100.1/25]
port_groups: [exits]
binding: {host: h1, interface: tap-up1}
---
kind: port
name: up2
router: tenant
mac: 02:00:00:00:04:01
addresses: [198.51.100.129/25]
port_groups: [exits]
binding: {host: h2, interface: tap-up2}
---
kind: route
name: out
router: tenant
destination: 203.0.113.0/24
next_hop: port
gateway: 198.51.100.2
port: up1
---
kind: vm
name: alice
port: alice
---
kind: vm
name: gw1
port: up1
mac: 02:00:00:00:03:02
addresses: [198.51.100.2/25]
gateways: [198.51.100.1]
---
kind: vm
name: gw2
port: up2
mac: 02:00:00:00:04:02
addresses: [198.51.100.130/25]
gateways: [198.51.100.129]
`

// outside is gw2's.
const outside = "203.0.113.9"

// Ports of a stateful group share the state of their connections: an answer may come in by another one than that by which the connection went out,
// on another host, also by one whose agent is killed and begins anew. In a group that is not stateful it is dropped as what nobody has asked for.
func TestPortGroupStateful(t *testing.T) {
	t.Parallel()
	l := laboratory(t, exits)
	alice, gw2, h2 := space(t, l, "alice"), space(t, l, "gw2"), &l.Hosts[1]
	joinOutside(t, space(t, l, "gw1"), gw2)

	before := enteredBy(t, h2, "up2")
	if out, err := command(alice, "ping", "-n", "-c", "10", "-i", "0.2", "-W", "1", outside); err == nil || !strings.Contains(out, " 0 received") {
		t.Errorf("without a stateful group, alice is answered: %v\n%s", err, out)
	}
	if n := enteredBy(t, h2, "up2") - before; n < 10 {
		t.Errorf("%d answers have come to the other host, want 10: this shows nothing", n)
	}
	s, err := debug.NewClient(h2.Socket()).Stats(t.Context())
	if err != nil || s.Dropped[drop.GroupDrop.String()] == 0 {
		t.Errorf("answers to what this host does not know are dropped as %v, %v", s.Dropped, err)
	}

	applyEverywhere(t, l, "kind: port_group\nname: exits\nstateful: true\n")
	for i := 0; i < 5 && !t.Failed(); i++ { // each is a new connection
		ping(t, alice, outside)
	}
	if t.Failed() {
		return
	}
	stream(t, alice, gw2, outside+":5001")

	// The agent of the answers' host is killed in the middle of a stream. Who has asked before, and who asks meanwhile, is answered when the next one is there.
	receive, err := tools().StartReady(t.Context(), gw2, "tcp", "receive", "--duration=60s")
	if err != nil {
		t.Fatal(err)
	}
	send, err := tools().Start(t.Context(), alice, "tcp", "send", outside+":5001", "--duration=6s")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is answered by the other port", enters(h2, "up2", enteredBy(t, h2, "up2")+100))
	const silent = "net/ipv4/icmp_echo_ignore_all"
	if err := gw2.Sysctl(silent, "1"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 2)
	ask := func(when string) {
		// Not for half a minute: then the hosts of the group would be told again of what is in use.
		if out, err := command(alice, "ping", "-n", "-i", "0.2", "-c", "1", "-w", "25", outside); err != nil {
			answered <- fmt.Errorf("who has asked %s: %w\n%s", when, err, out)
			return
		}
		answered <- nil
	}
	go ask("before")
	time.Sleep(500 * time.Millisecond) // of asking: no condition
	kill(t, h2)
	go ask("meanwhile")
	time.Sleep(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.StartAgent(ctx, h2); err != nil {
		t.Fatal(err)
	}
	if err := gw2.Sysctl(silent, "0"); err != nil {
		t.Fatal(err)
	}
	for range cap(answered) {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	allArrived(t, send, receive)
	ping(t, alice, outside)
	stream(t, alice, gw2, outside+":5001")
}

// joinOutside makes a cable between the two ends of the outside: what comes to the first goes on to the second, which has the address.
func joinOutside(t *testing.T, first, second ns.Space) {
	t.Helper()
	run := func(s ns.Space, line string) {
		if _, err := command(s, strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []ns.Space{first, second} {
		if err := s.Sysctl("net/ipv4/conf/all/rp_filter", "0"); err != nil {
			t.Fatal(err)
		}
	}
	run(first, "ip link add inside type veth peer name inside netns "+string(second))
	for s, address := range map[ns.Space]string{first: "192.0.2.1/30", second: "192.0.2.2/30"} {
		if err := s.Sysctl("net/ipv4/conf/inside/rp_filter", "0"); err != nil {
			t.Fatal(err)
		}
		run(s, "ip address add "+address+" dev inside")
		run(s, "ip link set inside up")
	}
	run(second, "ip address add "+outside+"/32 dev lo")
	if err := second.Sysctl("net/ipv4/conf/all/arp_announce", "2"); err != nil { // routers ignore who asks with an address of another link
		t.Fatal(err)
	}
	run(first, "ip route add "+outside+" via 192.0.2.2")
	if err := first.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
}

// enteredBy counts what has come in by a port.
func enteredBy(t *testing.T, h *lab.Host, name string) uint64 {
	t.Helper()
	p, err := hostPort(t.Context(), h, name)
	if err != nil || p == nil {
		t.Fatalf("port %s: %+v, %v", name, p, err)
	}
	return p.RxPackets
}

// enters holds when so much has.
func enters(h *lab.Host, name string, n uint64) func(context.Context) error {
	return func(ctx context.Context) error {
		p, err := hostPort(ctx, h, name)
		if err == nil && (p == nil || p.RxPackets < n) {
			err = fmt.Errorf("want %d packets: %+v", n, p)
		}
		return err
	}
}
