package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// statefulRates are those of rates around the best with groups and without, connectionRates around that of connections.
var (
	statefulRates   = []int{120_000, 160_000, 220_000, 300_000}
	connectionRates = []int{30_000, 60_000, 120_000}
)

// stateful measures what security groups of a hundred rules and connection tracking at both ends leave of the rate at which new
// flows are set up, and of that at which connections are: the same laboratory without them and with them, in turns; the ratios are the medians of the
// rounds', as the machine is not equally fast in all of them. A new flow is a
// datagram that nobody answers. A connection is a SYN and the RST with which a closed port answers it, both delivered: without groups that is two
// flows, with them the second one's misses are what is left of those that were expected (ADR 21).
func stateful(ctx context.Context, b *bench) error {
	grouped, err := withGroups(examples.TwoSubnets)
	if err != nil {
		return err
	}
	var flows, connections againstPlain
	for range b.rounds {
		plainFlows, plainConnections, err := b.setUps(ctx, examples.TwoSubnets)
		if err != nil {
			return err
		}
		groupFlows, groupConnections, err := b.setUps(ctx, grouped)
		if err != nil {
			return err
		}
		flows.add(plainFlows, groupFlows)
		connections.add(plainConnections, groupConnections)
		fmt.Fprintf(os.Stderr, "  flows/s: %.0f plain, %.0f with groups; connections/s: %.0f plain, %.0f with groups\n", plainFlows, groupFlows, plainConnections, groupConnections)
	}
	b.emit(figure("stateful_flows_per_s", median(flows.grouped), "flows/s").against(median(flows.plain)), figure("stateful_setup_ratio", median(flows.ratios), "ratio"),
		figure("stateful_connections_per_s", median(connections.grouped), "connections/s").against(median(connections.plain)),
		figure("stateful_connections_ratio", median(connections.ratios), "ratio"))
	return nil
}

// againstPlain are rates of the rounds.
type againstPlain struct{ plain, grouped, ratios []float64 }

func (a *againstPlain) add(plain, grouped float64) {
	a.plain, a.grouped, a.ratios = append(a.plain, plain), append(a.grouped, grouped), append(a.ratios, grouped/plain)
}

// setUps are the best rates of flows and of connections in a laboratory.
func (b *bench) setUps(ctx context.Context, text string) (flows, connections float64, err error) {
	// The flood begins a million connections, which is more than one port may have.
	conf := append([]string{"agent.conntrack.max_per_port=16777216"}, b.flowConf...)
	err = b.withLabOf(ctx, text, conf, func(l *lab.Lab) error {
		vms, err := spaces(l, "mallory", "carol")
		if err != nil {
			return err
		}
		var next uint32
		if flows, next, err = b.search(ctx, vms[0], vms[1], traffic.ModePorts, statefulRates, 0); err != nil {
			return err
		}
		connections, _, err = b.search(ctx, vms[0], vms[0], traffic.ModeSYN, connectionRates, next)
		return err
	})
	return flows, connections, err
}

// withGroups puts mallory, carol and bob into two groups of a hundred rules between them for UDP, and as many for TCP. The one that lets a packet of a
// flood pass is the last that is looked at, in either direction.
func withGroups(text string) (string, error) {
	for _, mac := range []string{"02:00:00:00:01:66", "02:00:00:00:02:66", "02:00:00:00:02:10"} {
		at := "mac: " + mac + "\n"
		if !strings.Contains(text, at) {
			return "", fmt.Errorf("the example has no %s", at)
		}
		text = strings.Replace(text, at, at+"port_security: true\nsecurity_groups: [g, h]\n", 1)
	}
	for _, group := range []string{"g", "h"} {
		text += "---\nkind: security_group\nname: " + group + "\n"
		for n := range 100 {
			protocol, i := "udp", n%50
			if n >= 50 {
				protocol = "tcp"
			}
			direction, rest := "ingress", ""
			if i%2 == 1 {
				direction = "egress"
			}
			switch {
			case i >= 48 && group == "h":
				rest = "remote_ip_prefix: 10.0.0.0/8\n"
			case i%4 < 2:
				rest = fmt.Sprintf("port_range_min: %d\nport_range_max: %d\nremote_ip_prefix: 192.0.2.0/24\n", i+1, i+1)
			default:
				rest = fmt.Sprintf("port_range_min: %d\nport_range_max: %d\nremote_group: %s\n", i+1, i+1, group)
			}
			text += fmt.Sprintf("---\nkind: security_group_rule\nname: %s-%s-%d\nsecurity_group: %s\ndirection: %s\nprotocol: %s\n%s", group, protocol, i, group, direction, protocol, rest)
		}
	}
	return text, nil
}
