package tool_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plain"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

const asTool = "VIADUCT_TEST_AS_TOOL"

// The test binary is also the tool that it starts in namespaces.
func TestMain(m *testing.M) {
	if os.Getenv(asTool) != "" {
		c := tool.Command()
		c.SetArgs(os.Args[1:])
		if c.ExecuteContext(context.Background()) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and need root")
		os.Exit(1)
	}
	os.Setenv(asTool, "1")
	os.Exit(m.Run())
}

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func gateways(s ...string) (a []netip.Addr) {
	for _, s := range s {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

// network is two subnets with a VM each on Linux bridges.
func network(t *testing.T) (a, b ns.Space) {
	t.Helper()
	nic := func(i int) plug.NIC {
		return plug.NIC{Name: "eth0", MAC: fmt.Sprintf("02:00:00:00:0%d:10", i),
			Addresses: prefixes(fmt.Sprintf("10.0.%d.10/24", i), fmt.Sprintf("fd00:%d::10/64", i)),
			Gateways:  gateways(fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("fd00:%d::1", i))}
	}
	n, err := plain.New(fmt.Sprintf("tool%d", os.Getpid()),
		[2][]netip.Prefix{prefixes("10.0.1.1/24", "fd00:1::1/64"), prefixes("10.0.2.1/24", "fd00:2::1/64")},
		[]plain.VM{{Name: "a", Bridge: 0, NIC: nic(1)}, {Name: "b", Bridge: 1, NIC: nic(2)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n.VM(0), n.VM(1)
}

func TestTools(t *testing.T) {
	a, b := network(t)
	run := tool.Runner{Command: []string{os.Args[0]}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	echo, err := run.StartReady(ctx, b, "echo")
	if err != nil {
		t.Fatal(err)
	}
	var echoed traffic.EchoResult
	defer func() {
		if err := echo.Stop(&echoed); err != nil || echoed.Echoed == 0 {
			t.Errorf("echo: %+v, %v", echoed, err)
		}
	}()
	for _, target := range []string{"10.0.2.10", "fd00:2::10"} {
		t.Run("probe "+target, func(t *testing.T) {
			p, err := run.Start(ctx, a, "probe", netip.AddrPortFrom(netip.MustParseAddr(target), traffic.EchoPort).String(),
				"--duration=500ms", "--window=100ms")
			if err != nil {
				t.Fatal(err)
			}
			var live, whole traffic.ProbeResult
			if err := p.Next(&live); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(&whole); err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", whole)
			if whole.Sent < 50 || whole.Lost != 0 || whole.P50 == 0 || whole.Max < whole.P50 || live.Sent == 0 || live.Sent >= whole.Sent {
				t.Errorf("live %+v, whole %+v", live, whole)
			}
		})
		t.Run("tcp "+target, func(t *testing.T) {
			receive, err := run.StartReady(ctx, b, "tcp", "receive")
			if err != nil {
				t.Fatal(err)
			}
			var sent, received traffic.TCPResult
			err = run.Run(ctx, a, &sent, "tcp", "send", netip.AddrPortFrom(netip.MustParseAddr(target), 5001).String(), "--duration=300ms")
			if err != nil {
				t.Error(err)
			}
			if err := receive.Wait(&received); err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", received)
			if sent.Bytes == 0 || sent.Bytes != received.Bytes {
				t.Errorf("sent %d bytes, received %d", sent.Bytes, received.Bytes)
			}
		})
	}
	t.Run("probe again", func(t *testing.T) {
		var r traffic.ProbeResult
		if err := run.Run(ctx, a, &r, "probe", fmt.Sprintf("10.0.2.10:%d", traffic.EchoPort), "--again", "--duration=200ms"); err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", r)
		if r.Sent == 0 || r.Lost != 0 || r.FirstP50 == 0 || r.FirstP99 < r.FirstP50 || r.LaterP50 == 0 || r.LaterP99 < r.LaterP50 || r.P50 < r.FirstP50 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("probe of nobody", func(t *testing.T) {
		var r traffic.ProbeResult
		if err := run.Run(ctx, a, &r, "probe", "10.0.2.99:7", "--duration=50ms", "--timeout=100ms"); err != nil {
			t.Fatal(err)
		}
		if r.Sent == 0 || r.Lost != r.Sent {
			t.Errorf("%+v", r)
		}
	})
}

// Every frame of a flood must arrive, where it is slow enough, and count as received by its
// target's stack: its checksums are right.
func TestFlood(t *testing.T) {
	a, b := network(t)
	run := tool.Runner{Command: []string{os.Args[0]}}
	for _, c := range []struct{ mode, target, counter string }{
		{"ports", "10.0.2.10", "Udp:InDatagrams+NoPorts"},
		{"ports", "fd00:2::10", "Udp6InDatagrams+Udp6NoPorts"},
		{"syn", "10.0.2.10", "Tcp:InSegs-InCsumErrors"},
		{"destinations", "10.0.2.10/32", "Udp:InDatagrams+NoPorts"},
	} {
		t.Run(c.mode+" "+c.target, func(t *testing.T) {
			before := received(t, b)
			var r traffic.FloodResult
			err := run.Run(t.Context(), a, &r, "flood", "--target="+c.target, "--mode="+c.mode, "--count=500", "--rate=20000", "--duration=5s")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
			after := received(t, b)
			if got := after[c.counter] - before[c.counter]; r.Sent != 500 || got < 500 {
				t.Errorf("sent %d, %s grew by %d", r.Sent, c.counter, got)
			}
		})
	}
	t.Run("full speed", func(t *testing.T) {
		var r traffic.FloodResult
		if err := run.Run(t.Context(), a, &r, "flood", "--target=10.0.2.10", "--duration=200ms", "--threads=2"); err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", r)
		if r.Sent < 1000 || r.Seconds > 5 {
			t.Errorf("%+v", r)
		}
	})
}
