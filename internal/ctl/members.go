package ctl

import (
	"context"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// memberStates is what is known of pool members, by id: of each load balancer that uses them.
type memberStates map[uuid.UUID][]wire.MemberStatus

// statesFor asks for them when members are among what is shown.
func statesFor(ctx context.Context, c *client.Client, objects []model.Object) (memberStates, error) {
	if !slices.ContainsFunc(objects, func(o model.Object) bool { return o.Kind() == model.KindPoolMember }) {
		return nil, nil
	}
	list, err := c.MemberStatus(ctx)
	if err != nil {
		return nil, err
	}
	states := make(memberStates)
	for _, s := range list.Items {
		if id, err := uuid.Parse(s.ID); err == nil {
			states[id] = append(states[id], s)
		}
	}
	return states, nil
}

// cells are STATE, SINCE and REASON: of the first load balancer behind which it is down, else of the first.
func (m memberStates) cells(id uuid.UUID) []string {
	list := m[id]
	if len(list) == 0 {
		return []string{"-", "-", "-"}
	}
	s := list[0]
	if i := slices.IndexFunc(list, func(s wire.MemberStatus) bool { return s.State == "down" }); i >= 0 {
		s = list[i]
	}
	since := "-"
	if s.Since != nil {
		since = s.Since.Format(time.RFC3339)
	}
	return []string{s.State, since, orDash(s.Reason)}
}

// document is the status of a member, which apply leaves alone.
func (m memberStates) document(x *ref.Index, id uuid.UUID) ([]byte, error) {
	var list []yaml.MapSlice
	for _, s := range m[id] {
		var d yaml.MapSlice
		add := func(key, value string) {
			if value != "" {
				d = append(d, yaml.MapItem{Key: key, Value: value})
			}
		}
		if lb, err := uuid.Parse(s.LoadBalancerID); err == nil {
			add("load_balancer", x.Label(model.KindLoadBalancer, lb))
		}
		add("state", s.State)
		add("reason", s.Reason)
		if s.Since != nil {
			add("since", s.Since.Format(time.RFC3339))
		}
		if host, err := uuid.Parse(s.HostID); err == nil {
			add("host", x.Label(model.KindHost, host))
		}
		list = append(list, d)
	}
	if list == nil {
		return nil, nil
	}
	return yaml.Marshal(yaml.MapSlice{{Key: "status", Value: list}})
}
