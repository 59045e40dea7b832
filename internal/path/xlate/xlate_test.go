package xlate

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

var (
	p1, p2, p3 = uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	mac        = match.MAC{2, 0, 0, 0, 0, 9}
)

func fwd(p uuid.UUID) action.Action { return action.Action{Op: action.Forward, VPort: p} }
func out(n uint32) action.Action    { return action.Action{Op: action.Output, Port: n} }

// far is on a host that is reached through a tunnel, cut on one that is not.
var (
	far, cut = uuid.UUID{4}, uuid.UUID{5}
	peer     = match.AddrFrom(netip.MustParseAddr("192.0.2.1"))
	remotes  = fakeRemotes{far: {uuid.UUID{8}, peer, 7}, cut: {host: uuid.UUID{9}, key: 8}}
)

type fakeRemotes map[uuid.UUID]struct {
	host uuid.UUID
	peer match.Addr
	key  uint32
}

func (f fakeRemotes) Remote(p uuid.UUID) (uuid.UUID, match.Addr, uint32, bool) {
	r := f[p]
	return r.host, r.peer, r.key, r.peer != match.Addr{}
}

func tunnel(key uint32) action.Action {
	return action.Action{Op: action.Tunnel, Port: 99, Addr: peer, Key: key}
}

func TestNoTunnel(t *testing.T) {
	if got, _, reason := NewPorts().Translate(nil, nil, action.Virtual{fwd(far)}, remotes); reason != drop.Inactive || len(got) != 0 {
		t.Errorf("without a tunnel: %v, %v", got, reason)
	}
}

func TestTranslate(t *testing.T) {
	ports := NewPorts().With(p1, 10).With(p2, 11).WithTunnel(99)
	set, ttl := action.Action{Op: action.SetEthDst, MAC: mac}, action.Action{Op: action.DecTTL}
	push, pop := action.Action{Op: action.PushVLAN, Value: 7}, action.Action{Op: action.PopVLAN}
	set2 := action.Action{Op: action.SetEthDst}
	for _, c := range []struct {
		name   string
		in     action.Virtual
		want   action.Physical
		reason drop.Reason
	}{
		{"local", action.Virtual{set, ttl, fwd(p1)}, action.Physical{set, ttl, out(10)}, drop.None},
		{"flood", action.Virtual{fwd(p1), fwd(p2)}, action.Physical{out(10), out(11)}, drop.None},
		{"an absent port is left out, its rewrites stay for the next", action.Virtual{set, fwd(p3), fwd(p2)}, action.Physical{set, out(11)}, drop.None},
		{"rewrites after the last output have no effect", action.Virtual{fwd(p1), set, fwd(p3)}, action.Physical{out(10)}, drop.None},
		{"a rewrite for an absent port is overridden", action.Virtual{set, fwd(p3), ttl, set2, fwd(p2)}, action.Physical{ttl, set2, out(11)}, drop.None},
		{"but not one that an output has seen", action.Virtual{set, fwd(p1), set2, fwd(p2)}, action.Physical{set, out(10), set2, out(11)}, drop.None},
		{"a tag for an absent port comes off unseen", action.Virtual{fwd(p1), push, fwd(p3), pop, fwd(p2)}, action.Physical{out(10), out(11)}, drop.None},
		{"but not one that an output has seen", action.Virtual{push, fwd(p1), pop, fwd(p2)}, action.Physical{push, out(10), pop, out(11)}, drop.None},
		{"nor one that was there before", action.Virtual{pop, fwd(p3), push, set, fwd(p2)}, action.Physical{pop, push, set, out(11)}, drop.None},
		{"remote", action.Virtual{set, fwd(far)}, action.Physical{set, tunnel(7)}, drop.None},
		{"local and remote", action.Virtual{fwd(p1), set, fwd(far)}, action.Physical{out(10), set, tunnel(7)}, drop.None},
		{"a host that cannot be reached", action.Virtual{set, fwd(cut)}, nil, drop.Inactive},
		{"nobody", action.Virtual{set, fwd(p3)}, nil, drop.Inactive},
		{"drop", nil, nil, drop.Inactive},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, tags, reason := ports.Translate(nil, nil, c.in, remotes)
			if len(got) == 0 {
				got = nil
			}
			if reason != c.reason || !cmp.Equal(got, c.want) {
				t.Errorf("got %v, reason %v; want %v, %v", got, reason, c.want, c.reason)
			}
			var want []tag.Tag
			for _, a := range c.in {
				if a.Op == action.Forward {
					want = append(want, tag.Tag{Kind: tag.Binding, ID: a.VPort})
					if r, ok := remotes[a.VPort]; ok {
						want = append(want, tag.Tag{Kind: tag.Host, ID: r.host})
					}
				}
			}
			if !slices.Equal(tags, want) {
				t.Errorf("tags %v, want %v: absent ports count too", tags, want)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	a := NewPorts().With(p1, 10)
	b := a.With(p2, 10) // the number moved to another virtual port
	if _, ok := b.Local(p1); ok {
		t.Error("p1 still has the number that went to p2")
	}
	if v, _ := b.Virtual(10); v != p2 {
		t.Errorf("10 is %v, want p2", v)
	}
	if v, _ := a.Virtual(10); v != p1 {
		t.Error("the older table changed")
	}
	c := b.With(p2, 12)
	if _, ok := c.Virtual(10); ok || c.Len() != 1 {
		t.Error("p2's old number stays behind")
	}
}

func TestTranslateDoesNotAllocate(t *testing.T) {
	ports := NewPorts().With(p1, 10).WithTunnel(99)
	v := action.Virtual{{Op: action.SetEthDst, MAC: mac}, {Op: action.DecTTL}, fwd(p1), fwd(far)}
	s := &view.Snapshot{
		Ports: map[uuid.UUID]*view.Port{far: {Host: uuid.UUID{8}, TunnelKey: 7}},
		Hosts: map[uuid.UUID]*view.Host{{8}: {Tunnel: peer}},
	}
	dst, tags := make(action.Physical, 0, 8), make([]tag.Tag, 0, 8)
	if n := testing.AllocsPerRun(100, func() { ports.Translate(dst, tags, v, s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
