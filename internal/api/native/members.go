package native

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

type memberStatusOutput struct{ Body wire.MemberStatuses }

// registerMemberStatus serves what hosts have found out about pool members: to each tenant, of its own.
func registerMemberStatus(api huma.API, c Config) {
	huma.Register(api, huma.Operation{
		OperationID: "pool-member-status", Summary: "What checks have found of pool members", Tags: []string{wire.Plural(model.KindPoolMember)},
		Method: http.MethodGet, Path: "/v1/" + wire.Plural(model.KindPoolMember) + "/status", Responses: problemResponses(api, 503),
	}, func(ctx context.Context, _ *struct{}) (*memberStatusOutput, error) {
		items, err := memberStatus(ctx, c.Store, c.Keys)
		if err != nil {
			return nil, problem(err, nowhere)
		}
		return &memberStatusOutput{wire.MemberStatuses{Items: items}}, nil
	})
}

func memberStatus(ctx context.Context, s store.Store, k store.Keys) ([]wire.MemberStatus, error) {
	objects := map[model.Kind][]model.Object{}
	for _, kind := range []model.Kind{model.KindLoadBalancer, model.KindPool, model.KindPoolMember} {
		list, _, err := s.List(ctx, kind)
		if err != nil {
			return nil, err
		}
		objects[kind] = list
	}
	keys, _, err := k.ReadKeys(ctx, health.Prefix)
	if err != nil {
		return nil, err
	}
	found := health.Read(keys, nil)
	used := map[uuid.UUID][]*model.LoadBalancer{} // by pool
	for _, o := range objects[model.KindLoadBalancer] {
		l := o.(*model.LoadBalancer)
		for _, x := range l.Listeners {
			if !slices.Contains(used[x.PoolID], l) {
				used[x.PoolID] = append(used[x.PoolID], l)
			}
		}
	}
	monitored := map[uuid.UUID]bool{}
	for _, o := range objects[model.KindPool] {
		monitored[o.GetMeta().ID] = o.(*model.Pool).Monitor != nil
	}
	items := []wire.MemberStatus{}
	for _, o := range objects[model.KindPoolMember] {
		m := o.(*model.PoolMember)
		is := wire.MemberStatus{ID: m.ID.String(), State: "unchecked"}
		if !m.AdminStateUp {
			is.State = "disabled"
		}
		for _, l := range used[m.PoolID] {
			at := is
			at.LoadBalancerID = l.ID.String()
			if m.AdminStateUp && monitored[m.PoolID] {
				checked(&at, &found, l.RouterID, m.ID)
			}
			items = append(items, at)
		}
		if len(used[m.PoolID]) == 0 {
			items = append(items, is)
		}
	}
	slices.SortFunc(items, func(a, b wire.MemberStatus) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.LoadBalancerID, b.LoadBalancerID))
	})
	return items, nil
}

// checked fills in what the host that is elected for a router says.
func checked(at *wire.MemberStatus, found *health.State, router, member uuid.UUID) {
	at.State = "unknown"
	if host := found.Elected(router); host != uuid.Nil {
		at.HostID = host.String()
	}
	s, ok := found.Members[router][member]
	if !ok {
		return
	}
	if at.State = "down"; s.Up {
		at.State = "up"
	}
	at.Reason = s.Reason
	if !s.Since.IsZero() {
		at.Since = &s.Since
	}
}
