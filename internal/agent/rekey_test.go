package agent

import (
	"log/slog"
	"maps"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
)

// Other hosts reach a port by the key that it has now, whether it is there or on its way: that of health checks has another one when another load balancer
// comes first, and what came for it was dropped (unknown_tunnel_key) until the checking host was another one.
func TestKeyOfPortChanges(t *testing.T) {
	clk := new(clock.Manual)
	dp := fake.New(clk, 1)
	tun := addTunnel(t, dp)
	policy := htb.New(htb.DefaultConfig(), dp.RootCredit())
	keys := map[uuid.UUID]uint32{ids(6): 60, ids(7): 70}
	p := newPorts(dp, policy, nil, func(id uuid.UUID) uint32 { return keys[id] }, func(uuid.UUID) (r datapath.Rates) { return r }, slog.New(slog.DiscardHandler))
	p.events, p.tunnel = newEvents(), &boundPort{Port: tun}
	want := func(what string, m map[uint32]uint32) {
		t.Helper()
		if got, err := dp.TunnelKeys(); err != nil || !maps.Equal(got, m) {
			t.Fatalf("%s: %v, %v; want %v", what, got, err, m)
		}
	}
	change := func(id uuid.UUID, key uint32) {
		keys[id] = key
		p.follow([]tag.Tag{{Kind: tag.Device, ID: id}, {Kind: tag.Port, ID: id}})
	}
	dp.AddInterface("tap0", 1500)
	if err := p.Bind(ids(6), "tap0", 1); err != nil {
		t.Fatal(err)
	}
	no := p.bound[ids(6)].No
	want("bound", map[uint32]uint32{60: no})
	change(ids(6), 61)
	want("another key", map[uint32]uint32{61: no})
	change(ids(6), 61)
	change(ids(7), 71) // which is not here
	change(ids(6), 0)  // the network is not known for a moment
	want("the same", map[uint32]uint32{61: no})

	p.expect(ids(7), false)
	want("expected", map[uint32]uint32{61: no, 71: tun.No})
	change(ids(7), 72)
	want("expected with another key", map[uint32]uint32{61: no, 72: tun.No})
	dp.AddInterface("tap1", 1500)
	if err := p.Bind(ids(7), "tap1", 1); err != nil {
		t.Fatal(err)
	}
	change(ids(7), 73)
	want("bound, and its interface is not up", map[uint32]uint32{61: no, 73: tun.No})
	p.Up(ids(7))
	want("up", map[uint32]uint32{61: no, 73: p.bound[ids(7)].No})
	keys[ids(6)], keys[ids(7)] = 73, 61
	p.follow([]tag.Tag{{Kind: tag.Port, ID: ids(6)}, {Kind: tag.Port, ID: ids(7)}})
	want("each has the other's", map[uint32]uint32{73: no, 61: p.bound[ids(7)].No})
	p.Unbind(ids(7), "tap1", 1)
	p.Unbind(ids(6), "tap0", 1)
	want("unbound", map[uint32]uint32{})
}

func addTunnel(t *testing.T, dp *fake.Datapath) datapath.Port {
	t.Helper()
	dp.AddInterface("vxlan", 65485)
	tun, err := dp.AddPort("vxlan", datapath.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	return tun
}
