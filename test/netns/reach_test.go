package netns

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

func TestReach(t *testing.T) {
	t.Parallel()
	reach(t, twoSubnets(t))
}

// A VM behind a tap, with a process that stands for the hypervisor.
func TestTap(t *testing.T) {
	t.Parallel()
	reach(t, twoSubnets(t, "kind: vm\nname: alice\nport: alice\n", "kind: vm\nname: alice\nport: alice\ndevice: tap\n"))
}

// reach has alice talk with everybody, in both address families.
func reach(t *testing.T, l *lab.Lab) {
	alice := space(t, l, "alice")
	for _, c := range []struct{ name, address string }{
		{"gateway", "10.0.1.1"}, {"gateway6", "fd00:1::1"},
		{"far gateway", "10.0.2.1"}, {"far gateway6", "fd00:2::1"},
		{"neighbour", "10.0.1.66"}, {"neighbour6", "fd00:1::66"},
		{"other subnet", "10.0.2.10"}, {"other subnet6", "fd00:2::10"},
	} {
		t.Run("ping "+c.name, func(t *testing.T) { ping(t, alice, c.address) })
	}
	t.Run("ping fragmented", func(t *testing.T) { ping(t, alice, "10.0.2.10", "-s", "4000") })
	t.Run("ping fragmented6", func(t *testing.T) { ping(t, alice, "fd00:2::10", "-s", "4000") })
	t.Run("arping", func(t *testing.T) {
		if out, err := command(alice, "arping", "-c", "2", "-w", "20", "-I", "eth0", "10.0.1.1"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	for _, address := range []string{"10.0.2.10:5001", "[fd00:2::10]:5001"} {
		t.Run("tcp "+address, func(t *testing.T) {
			receive, err := tools().StartReady(t.Context(), space(t, l, "bob"), "tcp", "receive", "--duration=30s")
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
}
