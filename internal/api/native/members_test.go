package native

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// TestMemberStatus: each state that a member can be in, of each load balancer that uses it.
func TestMemberStatus(t *testing.T) {
	id := func(n byte) uuid.UUID { return uuid.UUID{n, 6: 0x40, 8: 0x80, 15: n} }
	s := mem.New()
	since := time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)
	host, router := id(1), id(2)
	create := func(os ...model.Object) {
		for _, o := range os {
			if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
	}
	member := func(n byte, pool uuid.UUID, up bool) *model.PoolMember {
		return &model.PoolMember{Meta: model.Meta{ID: id(n)}, PoolID: pool, AdminStateUp: up, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), Port: 80, Weight: 1}
	}
	balancer := func(n byte, pool uuid.UUID) *model.LoadBalancer {
		return &model.LoadBalancer{Meta: model.Meta{ID: id(n)}, RouterID: router, AdminStateUp: true, Address: netip.AddrFrom4([4]byte{192, 0, 2, n}),
			Listeners: []model.Listener{{Protocol: 6, Port: 80, PoolID: pool}}}
	}
	create(
		&model.Router{Meta: model.Meta{ID: router}, AdminStateUp: true},
		&model.Pool{Meta: model.Meta{ID: id(10)}, Monitor: &model.HealthMonitor{Type: model.MonitorTCP, Delay: 5, Timeout: 5, MaxRetries: 3, MaxRetriesDown: 3}},
		&model.Pool{Meta: model.Meta{ID: id(11)}},
		member(20, id(10), true), member(21, id(10), true), member(22, id(10), true), member(23, id(10), false), member(24, id(11), true),
		balancer(30, id(10)), balancer(31, id(10)),
	)
	found := health.Report{router: {id(20): {Up: true, Since: since}, id(21): {Reason: "connection refused", Since: since}, id(23): {Up: true}}}
	ctx := t.Context()
	values := make(chan string, 1)
	values <- found.Text()
	go func() { _ = s.Announce(ctx, health.Key(host), values) }()
	var items []wire.MemberStatus
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var err error
		if items, err = memberStatus(ctx, s, s); err != nil {
			t.Fatal(err)
		}
		if items[0].State == "up" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", items)
		}
	}
	type is struct{ id, lb, state, reason, host string }
	want := []is{
		{id(20).String(), id(30).String(), "up", "", host.String()}, {id(20).String(), id(31).String(), "up", "", host.String()},
		{id(21).String(), id(30).String(), "down", "connection refused", host.String()}, {id(21).String(), id(31).String(), "down", "connection refused", host.String()},
		{id(22).String(), id(30).String(), "unknown", "", host.String()}, {id(22).String(), id(31).String(), "unknown", "", host.String()},
		{id(23).String(), id(30).String(), "disabled", "", ""}, {id(23).String(), id(31).String(), "disabled", "", ""},
		{id(24).String(), "", "unchecked", "", ""},
	}
	if len(items) != len(want) {
		t.Fatalf("%d, want %d: %+v", len(items), len(want), items)
	}
	for i, w := range want {
		s := items[i]
		if got := (is{s.ID, s.LoadBalancerID, s.State, s.Reason, s.HostID}); got != w {
			t.Errorf("%d: %+v, want %+v", i, got, w)
		}
		if known := s.State == "up" || s.State == "down"; known != (s.Since != nil) || known && !s.Since.Equal(since) {
			t.Errorf("%d: since %v", i, s.Since)
		}
	}
}
