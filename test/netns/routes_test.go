package netns

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// told waits until a ping says what a router has told it.
func told(t *testing.T, from ns.Space, want, address string, more ...string) {
	t.Helper()
	args := append([]string{"ping", "-n", "-c", "1", "-W", "1"}, more...)
	eventually(t, want+" from "+address, func(context.Context) error {
		if out, _ := command(from, append(args, address)...); !strings.Contains(out, want) { // it fails: nobody answers
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// TestRoutes: what hosts are told of packets that a router does not forward, in both families; the path MTU, with which they go on, also on a flow
// that short packets have begun; two equal routes,
// each of which suffices.
func TestRoutes(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	alice, mallory := space(t, l, "alice"), space(t, l, "mallory")
	apply(t, l, `
{kind: subnet, name: red4, bridge: red, cidr: 10.0.2.0/24, gateway: 10.0.2.1, mtu: 1300}
---
{kind: subnet, name: red6, bridge: red, cidr: "fd00:2::/64", gateway: "fd00:2::1", mtu: 1300}
---
{kind: route, name: hole, router: tenant, destination: 192.0.2.0/24, next_hop: blackhole}
---
{kind: route, name: refused, router: tenant, destination: 198.51.100.0/24, next_hop: reject}
---
{kind: route, name: refused-ipv6, router: tenant, destination: "2001:db8::/32", next_hop: reject}
`)
	told(t, alice, "Frag needed and DF set (mtu = 1300)", "10.0.2.10", "-M", "do", "-s", "1400")
	told(t, alice, "Packet too big: mtu=1300", "fd00:2::10", "-M", "do", "-s", "1400")
	ping(t, alice, "10.0.2.10", "-s", "1400") // in fragments now
	ping(t, alice, "fd00:2::10", "-s", "1400")
	for address, want := range map[string]string{"10.0.2.10": "Frag needed and DF set (mtu = 1300)", "fd00:2::10": "Packet too big: mtu=1300"} {
		ping(t, mallory, address, "-e", "77") // short ones, which begin a flow
		told(t, mallory, want, address, "-e", "77", "-M", "do", "-s", "1400")
		ping(t, mallory, address, "-e", "77")
		ping(t, mallory, address, "-s", "1400")
	}
	told(t, alice, "Destination Net Unreachable", "203.0.113.9")
	told(t, alice, "No route", "2001:db9::9")
	told(t, alice, "Packet filtered", "198.51.100.9")
	told(t, alice, "Administratively prohibited", "2001:db8::9")
	told(t, alice, "Time to live exceeded", "10.0.2.10", "-t", "1")
	told(t, alice, "Time exceeded: Hop limit", "fd00:2::10", "-t", "1")
	if out, err := command(alice, "ping", "-n", "-c", "1", "-W", "1", "192.0.2.9"); err == nil || strings.Contains(out, "From") {
		t.Errorf("a black hole answers: %v\n%s", err, out)
	}

	const leg = `{kind: port, name: tenant-%[1]s, router: tenant, addresses: [100.64.%[2]d.1/24], peer: %[1]s-tenant%[3]s}`
	for i, way := range []string{"way1", "way2"} {
		apply(t, l, fmt.Sprintf(`
{kind: bridge, name: %[1]s}
---
{kind: router, name: far}
---
{kind: port, name: %[1]s-tenant, bridge: %[1]s}
---
{kind: port, name: %[1]s-far, bridge: %[1]s}
---
{kind: port, name: far-%[1]s, router: far, addresses: [100.64.%[2]d.2/24], peer: %[1]s-far}
---
{kind: port, name: far-end, router: far, addresses: [10.0.3.1/24]}
---
`, way, i+1)+fmt.Sprintf(leg, way, i+1, "")+fmt.Sprintf(`
---
{kind: route, name: there-%[1]s, router: tenant, destination: 10.0.3.0/24, port: tenant-%[1]s, gateway: 100.64.%[2]d.2}
---
{kind: route, name: back-%[1]s, router: far, destination: 10.0.0.0/16, port: far-%[1]s, gateway: 100.64.%[2]d.1}
`, way, i+1))
	}
	reached := func(how string) {
		t.Helper()
		for _, s := range []ns.Space{alice, mallory, space(t, l, "bob")} {
			eventually(t, how, func(context.Context) error {
				out, err := command(s, "ping", "-n", "-c", "2", "-i", "0.1", "-W", "1", "10.0.3.1")
				if err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
				return nil
			})
		}
	}
	reached("by two equal routes")
	for i, way := range []string{"way1", "way2"} {
		apply(t, l, fmt.Sprintf(leg, way, i+1, ", admin_state_up: false"))
		reached("without " + way)
		apply(t, l, fmt.Sprintf(leg, way, i+1, ""))
	}
}

// TestRulesTag: rules tag and mark what alice sends to mallory, and take the tag off where it leaves.
func TestRulesTag(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	alice, mallory := space(t, l, "alice"), space(t, l, "mallory")
	const port = `{kind: port, name: mallory, bridge: blue, mac: "02:00:00:00:01:66", addresses: [10.0.1.66, "fd00:1::66"], binding: {host: h1, interface: tap-mallory}%s}`
	apply(t, l, `
{kind: chain, name: tags}
---
{kind: rule, name: mark, chain: tags, position: 1, match: {proto: icmp}, action: set_dscp, dscp: 46, then: continue}
---
{kind: rule, name: tag, chain: tags, position: 2, match: {tos: 184}, action: push_vlan, vlan: 12}
---
{kind: chain, name: untags}
---
{kind: rule, name: untag, chain: untags, position: 1, match: {vlan: 12}, action: pop_vlan}
---
`+fmt.Sprintf(aliceWith, ", inbound_filter: tags"))
	sees := func(what string) {
		t.Helper()
		eventually(t, "mallory gets "+what, func(ctx context.Context) error {
			var seen strings.Builder
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "tcpdump", "-n", "-e", "-v", "-l", "-c", "1", "-i", "eth0", what)
			cmd.Stdout = &seen
			if err := mallory.Start(cmd); err != nil {
				return err
			}
			_, _ = command(alice, "ping", "-n", "-c", "5", "-i", "0.2", "-W", "1", "10.0.1.66") // answered or not
			if err := cmd.Wait(); err != nil || !strings.Contains(seen.String(), "10.0.1.10 > 10.0.1.66") {
				return fmt.Errorf("%v: %s", err, &seen)
			}
			return nil
		})
	}
	sees("vlan 12 and icmp and ip[1] & 0xfc == 0xb8")
	silent(t, alice, "10.0.1.66") // mallory is in no VLAN
	apply(t, l, fmt.Sprintf(port, ", outbound_filter: untags"))
	sees("icmp and ip[1] & 0xfc == 0xb8")
	ping(t, alice, "10.0.1.66")
}
