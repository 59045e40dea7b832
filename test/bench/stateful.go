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

// statefulRates are those of rates around the best, connectionRates around that of connections.
var (
	statefulRates   = []int{120_000, 160_000, 200_000, 250_000, 300_000, 0}
	connectionRates = []int{40_000, 60_000, 80_000, 120_000, 160_000, 0}
)

// stateful measures what security groups of a hundred rules and connection tracking at both ends leave of the rate at which new
// flows are set up, and of that at which connections are: the same laboratory without them and with them, in turns. A new flow is a
// datagram that nobody answers. A connection is a SYN and the RST with which a closed port answers it, both delivered: without groups that is two
// flows, with them the second one's misses are what is left of those that were expected (ADR 21).
func stateful(ctx context.Context, b *bench) error {
	grouped, err := withGroups(examples.TwoSubnets)
	if err != nil {
		return err
	}
	best, connections := map[string]float64{}, map[string]float64{}
	for range 2 {
		for _, text := range []string{examples.TwoSubnets, grouped} {
			// The flood begins a million connections, which is more than one port may have.
			conf := append([]string{"agent.conntrack.max_per_port=16777216"}, b.flowConf...)
			err := b.withLabOf(ctx, text, conf, func(l *lab.Lab) error {
				vms, err := spaces(l, "mallory", "carol")
				if err != nil {
					return err
				}
				first := uint32(0)
				for _, rate := range statefulRates {
					perSecond, sent, err := b.deliver(ctx, vms[0], vms[1], traffic.ModePorts, rate, first)
					if err != nil {
						return err
					}
					fmt.Fprintf(os.Stderr, "  groups %v: offered %.0f/s, delivered %.0f/s\n", text == grouped, sent.PerSecond, perSecond)
					best[text] = max(best[text], perSecond)
					first += uint32(sent.Sent + sent.Refused)
				}
				for _, rate := range connectionRates {
					perSecond, sent, err := b.deliver(ctx, vms[0], vms[0], traffic.ModeSYN, rate, first)
					if err != nil {
						return err
					}
					fmt.Fprintf(os.Stderr, "  groups %v: %.0f SYN/s, answered %.0f/s\n", text == grouped, sent.PerSecond, perSecond)
					connections[text] = max(connections[text], perSecond)
					first += uint32(sent.Sent + sent.Refused)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	f := figure("stateful_flows_per_s", best[grouped], "flows/s").against(best[examples.TwoSubnets])
	c := figure("stateful_connections_per_s", connections[grouped], "connections/s").against(connections[examples.TwoSubnets])
	b.emit(f, figure("stateful_setup_ratio", *f.Ratio, "ratio"), c, figure("stateful_connections_ratio", *c.Ratio, "ratio"))
	return nil
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
