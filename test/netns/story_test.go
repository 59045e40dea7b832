package netns

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// leaseScript takes the address and the gateway, and leaves the machine's resolver alone.
const leaseScript = `#!/bin/sh
case $1 in bound|renew) ip address replace "$ip/$mask" dev eth0 && ip route replace default via "$router";; esac
`

// begins are the stages of every packet that has not been seen before, from the kernel to the simulation.
func begins(port string) []string {
	return []string{"datapath datapath port", "one token taken", "upcall queue", "flow datapath-flow copy: no match", "flow wildcard table: no match",
		"prep duplicates: nobody", "prep datapath port", "is virtual port " + port, "sim port " + port + ": ingress"}
}

// answered is a packet that a device consumes: no flow, and a packet made that leaves by p5.
func answered(from string, way ...string) []string {
	return then([]string{"sim result: consumed", "worker remember: no flow", " generated packet", "starts at the egress of " + from}, way,
		[]string{"sim port p5: egress, exterior: Forward(p5)", "sim result: forward: Forward(p5)", "xlate actions: output", "datapath execute: output"})
}

// forwarded is a packet for which a flow is installed before it is sent on.
func forwarded(port, action string) []string {
	return []string{"sim port " + port + ": egress, exterior: Forward(" + port + ")", "sim result: forward: ", "Forward(" + port + ")", "xlate actions: ", action,
		"worker remember: wildcard entry on ", "datapath install: ", " -> ", action, "datapath execute: ", action}
}

func then(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// The way of a VM's first packets through a cloud's usual network, step by step: what the agent says that it did with each, and that
// the VM got what it wanted.
func TestStory(t *testing.T) {
	t.Parallel()
	needs(t, "udhcpc")
	l := up(t, examples.Story)
	vm, internet := space(t, l, "vm"), space(t, l, "internet")
	again := then([]string{"packet (waited, starts again)"}, begins("p5")[3:]) // it is the same miss, and holds no token
	toRouter := []string{"sim bridge tenant-net: MAC table finds 02:00:00:00:01:01 at port p3", "sim port p4: ingress"}
	outward := then(toRouter, []string{"sim router tenant: route 0.0.0.0/0 matched", "sim NAT: 10.0.1.5:", " becomes 203.0.113.1:",
		"sim router tenant: next hop 203.0.113.254", "out of port p1", "sim port p2: ingress", "sim router provider: route 198.51.100.0/24 matched"})
	inward := then(begins("uplink"), []string{"sim router provider: route 203.0.113.0/24 matched", "out of port p2", "sim port p1: ingress"})
	delivered := []string{"sim router tenant: route 10.0.1.0/24 matched", "out of port p4", "sim port p3: ingress", "sim bridge tenant-net: MAC table finds"}

	for _, step := range []struct {
		name       string
		do         func(t *testing.T)
		host, port string     // where the packets enter
		wants      [][]string // for each a packet, in this order
	}{
		{"DHCP gives address and gateway", func(t *testing.T) { lease(t, vm) }, "host5", "p5", [][]string{
			then(begins("p5"), []string{"sim subnet tenant-subnet: DHCP DISCOVER: OFFER 10.0.1.5"}, answered("p5")),
			then(begins("p5"), []string{"sim subnet tenant-subnet: DHCP REQUEST: ACK 10.0.1.5"}, answered("p5")),
		}},
		{"gateway ARP and ping", func(t *testing.T) { ping(t, vm, "10.0.1.1") }, "host5", "p5", [][]string{
			then([]string{"eth_type=0x0806"}, begins("p5"), []string{"sim bridge tenant-net: ARP table finds 10.0.1.1 at 02:00:00:00:01:01",
				"generate ARP reply out of port p5", "sim bridge tenant-net: consume"}, answered("p5")),
			then(begins("p5"), []string{"sim bridge tenant-net: MAC table finds 02:00:00:00:01:01 at port p3", "sim port p3: egress, interior", "sim port p4: ingress",
				"sim router tenant: generate echo reply out of port p4", "sim router tenant: consume"},
				answered("p4", "sim port p4: egress, interior", "sim port p3: ingress", "sim bridge tenant-net: MAC table finds 02:00:00:00:01:05 at port p5")),
		}},
		{"a VM on this host", func(t *testing.T) { ping(t, vm, "10.0.1.6") }, "host5", "p5", [][]string{
			then(begins("p5"), []string{"sim bridge tenant-net: MAC table finds 02:00:00:00:01:06 at port p6"}, forwarded("p6", "output(")),
		}},
		{"a VM on another host", func(t *testing.T) { ping(t, vm, "10.0.1.7") }, "host5", "p5", [][]string{
			then(begins("p5"), []string{"sim bridge tenant-net: MAC table finds 02:00:00:00:01:07 at port p7"}, forwarded("p7", "tunnel(")),
		}},
		{"out, once ports are leased and the provider's neighbour has answered", func(t *testing.T) { ping(t, vm, "198.51.100.100") }, "host5", "p5", [][]string{
			then(begins("p5"), toRouter, []string{"sim NAT: not yet: no ports of 203.0.113.1 are leased", "sim result: not yet", "prep park: until ports of 203.0.113.1 are leased"}),
			then(again, outward, []string{"sim result: not yet", " generated packet", "starts at the egress of uplink", "prep park: until the neighbour 198.51.100.100 answers"}),
			then(again, outward, forwarded("uplink", "tunnel(")),
		}},
		{"and back, under a new echo identifier", func(t *testing.T) { ping(t, vm, "198.51.100.100") }, "host6", "uplink", [][]string{
			then(inward, []string{"sim NAT: 198.51.100.100:", "> 203.0.113.1:", " becomes ", "> 10.0.1.5:"}, delivered, forwarded("p5", "tunnel(")),
		}},
		{"a floating IP inwards", func(t *testing.T) { ping(t, internet, "203.0.113.11") }, "host6", "uplink", [][]string{
			then(inward, []string{"sim NAT: destination 203.0.113.11 becomes 10.0.1.6"}, delivered, forwarded("p6", "tunnel(")),
		}},
		{"a drop", func(t *testing.T) {
			if out, err := command(vm, "ping", "-n", "-c", "1", "-W", "1", "10.99.0.1"); err == nil {
				t.Errorf("answered:\n%s", out)
			}
		}, "host5", "p5", [][]string{
			then(begins("p5"), toRouter, []string{"sim router tenant: route 10.0.0.0/8 matched: blackhole", "sim result: drop",
				"worker remember: wildcard entry on ", "datapath install: ", "dst=10.99.0.1", " -> drop"}),
		}},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			texts := watch(t, l, step.host, step.port)
			step.do(t)
			for _, want := range step.wants {
				await(t, texts, want)
			}
		})
		if !ok {
			return // the later steps build on it
		}
	}
	t.Run("the drop is a flow, what was consumed is none", func(t *testing.T) {
		flows, err := debug.NewClient(l.Hosts[0].Socket()).Flows(t.Context(), "p5", 0)
		if err != nil {
			t.Fatal(err)
		}
		drops := false
		for _, f := range flows {
			drops = drops || strings.Contains(f.Key, " dst=10.99.0.1 ") && f.Actions == "drop"
			if strings.Contains(f.Key, "eth_type=0x0806") || strings.Contains(f.Key, " dst=10.0.1.1 ") {
				t.Errorf("a packet that a device consumed has a flow: %+v", f)
			}
		}
		if !drops {
			t.Errorf("none of the flows drops: %+v", flows)
		}
	})
}

// lease has the VM learn its address and gateway.
func lease(t *testing.T, vm ns.Space) {
	t.Helper()
	script := t.TempDir() + "/script"
	if err := os.WriteFile(script, []byte(leaseScript), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := command(vm, "udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "1", "-i", "eth0", "-s", script); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for what, want := range map[string]string{"address": "inet 10.0.1.5/24 ", "route": "default via 10.0.1.1 "} {
		if out, err := command(vm, "ip", "-4", what, "show", "dev", "eth0"); err != nil || !strings.Contains(out, want) {
			t.Errorf("no %q: %v\n%s", want, err, out)
		}
	}
}

// watch returns what the agent says of the packets that enter at a port from now on, until the test ends.
func watch(t *testing.T, l *lab.Lab, host, port string) <-chan string {
	t.Helper()
	h, err := l.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	trees, err := debug.NewClient(h.Socket()).Watch(ctx, port, 0)
	if err != nil {
		t.Fatal(err)
	}
	texts, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for {
			tree, err := trees.Next()
			if err != nil {
				if ctx.Err() == nil && err != io.EOF {
					texts <- fmt.Sprintf("the stream broke: %v", err)
				}
				return
			}
			var b strings.Builder
			_ = tree.Render(&b) // a strings.Builder takes everything
			texts <- strings.Join(strings.Fields(b.String()), " ")
		}
	}()
	t.Cleanup(func() { cancel(); trees.Close(); <-done })
	return texts
}

// await reads packets until one has all that is wanted of it, in its order.
func await(t *testing.T, texts <-chan string, want []string) {
	t.Helper()
	seen := ""
	timeout := time.After(time.Minute)
	for {
		select {
		case text := <-texts:
			lacks := lacking(text, want)
			if lacks == "" {
				return
			}
			seen += fmt.Sprintf("\nlacks %q: %s", lacks, text)
		case <-timeout:
			t.Fatalf("no packet went this way: %s", seen)
		}
	}
}

// lacking is the first of the marks that a text does not have after those before it; "": it has all.
func lacking(text string, marks []string) string {
	for _, m := range marks {
		_, rest, ok := strings.Cut(text, m)
		if !ok {
			return m
		}
		text = rest
	}
	return ""
}
