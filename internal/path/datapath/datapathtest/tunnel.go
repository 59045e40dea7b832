package datapathtest

import (
	"errors"
	"maps"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// What comes out of a tunnel is for tests that have one; this is the table alone.
func tunnelKeys(b *bench) {
	if b.limits.NoTunnels {
		if err := b.dp.SetTunnelKey(1, 1); !errors.Is(err, datapath.ErrTunnel) {
			b.Errorf("got %v, want ErrTunnel", err)
		}
		if _, err := b.dp.TunnelKeys(); !errors.Is(err, datapath.ErrTunnel) {
			b.Errorf("got %v, want ErrTunnel", err)
		}
		return
	}
	p := b.ports(1)[0]
	const last = 1<<24 - 1
	want := map[uint32]uint32{}
	set := func(key, port uint32) {
		b.Helper()
		b.must(b.dp.SetTunnelKey(key, port))
		if want[key] = port; port == 0 {
			delete(want, key)
		}
		if got, err := b.dp.TunnelKeys(); err != nil || !maps.Equal(got, want) {
			b.Fatalf("keys are %v, %v; want %v", got, err, want)
		}
	}
	set(1, p.No)
	set(last, p.No+100) // a port that is still to come
	set(1, p.No+1)
	set(1, 0)
	set(1, 0)
	set(last, 0)
}
