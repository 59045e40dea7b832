package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

const aliceWith = `{kind: port, name: alice, bridge: blue, mac: "02:00:00:00:01:10", addresses: [10.0.1.10, "fd00:1::10"], binding: {host: h1, interface: tap-alice}%s}`

// throughput is what arrives of iperf3's stream from client to server, in bits a second of its payload. A server that is not there yet
// has the client try again, with another one.
func throughput(t *testing.T, client, server ns.Space, address string, seconds int, more ...string) (rate float64) {
	t.Helper()
	eventually(t, "iperf3", func(context.Context) (err error) {
		rate, err = iperf3(t, client, server, append([]string{"iperf3", "-c", address, "-J", "-t", fmt.Sprint(seconds)}, more...))
		return err
	})
	return rate
}

func iperf3(t *testing.T, client, server ns.Space, args []string) (float64, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "iperf3", "-s", "-1")
	if err := server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // stopped, or done
	}()
	var r struct {
		Error string // with -J some failures are told here alone
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	for tries := 1; ; tries++ {
		out, err := command(client, args...)
		if err == nil {
			err = json.Unmarshal([]byte(out), &r)
		}
		if err == nil && r.Error != "" {
			err = errors.New(r.Error)
		}
		// Only until it has connected: a server that has taken one client, to whatever end, is gone.
		if err == nil || !strings.Contains(err.Error(), "unable to connect to server") || tries == 100 {
			return r.End.Received.Rate, err
		}
		time.Sleep(20 * time.Millisecond) // the server takes its time
	}
}

// TestBandwidth: a limit holds for established traffic in either direction, as it is set and taken away.
func TestBandwidth(t *testing.T) {
	l := twoSubnets(t)
	alice, bob := space(t, l, "alice"), space(t, l, "bob")
	const mbit = 1e6
	free := throughput(t, alice, bob, "10.0.2.10", 1)
	if free < 200*mbit {
		t.Fatalf("without a limit %.0f Mbit/s: nothing to be seen of one", free/mbit)
	}
	held := func(name string, limit float64, more ...string) {
		t.Helper()
		eventually(t, name, func(context.Context) error {
			got := throughput(t, alice, bob, "10.0.2.10", 3, more...)
			t.Logf("%s: %.1f Mbit/s of %.0f", name, got/mbit, limit/mbit)
			if got < limit/2 || got > limit*1.2 {
				return fmt.Errorf("%.1f Mbit/s, the limit is %.0f", got/mbit, limit/mbit)
			}
			return nil
		})
	}
	applyEverywhere(t, l, `{kind: qos_policy, name: bronze, egress: {max_kbps: 40000}, ingress: {max_kbps: 80000}}`+"\n---\n"+fmt.Sprintf(aliceWith, ", qos_policy: bronze"))
	udp := []string{"-u", "-b", "150M", "-l", "1400"}
	tcp := []string{"-C", "cubic"} // BBR, some machines' default, takes losses for noise
	held("egress, TCP", 40*mbit, tcp...)
	held("egress, UDP", 40*mbit, udp...)
	held("ingress, TCP", 80*mbit, append(tcp, "-R")...)
	held("ingress, UDP", 80*mbit, append(udp, "-R")...)
	p := port(t, l, "alice")
	if p.Drops["egress_limit"] == 0 || p.Drops["ingress_limit"] == 0 {
		t.Errorf("drops %v: no limit was met", p.Drops)
	}
	applyEverywhere(t, l, `{kind: qos_policy, name: bronze, egress: {max_kbps: 10000}}`)
	held("a smaller egress", 10*mbit, udp...)
	applyEverywhere(t, l, fmt.Sprintf(aliceWith, ""))
	eventually(t, "no limit", func(context.Context) error {
		if got := throughput(t, alice, bob, "10.0.2.10", 1); got < 100*mbit {
			return fmt.Errorf("%.0f Mbit/s", got/mbit)
		}
		return nil
	})
}

// TestMirrorAndDSCP: carol is sent a copy of what alice sends, and it carries alice's mark.
func TestMirrorAndDSCP(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	alice, carol := space(t, l, "alice"), space(t, l, "carol")
	apply(t, l, `{kind: qos_policy, name: voice, dscp: 46}`+"\n---\n"+fmt.Sprintf(aliceWith, ", qos_policy: voice")+`
---
{kind: mirror, name: watch, bridge: blue, direction: in, match: {proto: icmp}, to_port: carol}`)
	eventually(t, "a marked copy", func(ctx context.Context) error {
		var seen strings.Builder
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "tcpdump", "-n", "-v", "-l", "-c", "1", "-i", "any", "icmp and src 10.0.1.10 and ip[1] & 0xfc == 0xb8")
		cmd.Stdout = &seen
		if err := carol.Start(cmd); err != nil {
			return err
		}
		ping(t, alice, "10.0.2.10") // the original arrives as ever
		if err := cmd.Wait(); err != nil || !strings.Contains(seen.String(), "10.0.1.10 > 10.0.2.10") {
			return fmt.Errorf("%v: %s", err, &seen)
		}
		return nil
	})
}
