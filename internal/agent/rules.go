package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// ruleList is a chain, or one direction of a security group.
type ruleList struct {
	of    string // the name of the chain or group
	id    uuid.UUID
	title string
	rules []view.Rule
}

// Rules implements debug.Agent: those of chains, then those of security groups.
func (a *Agent) Rules(_ context.Context, chain string) ([]debug.Rule, error) {
	snap := a.mirror.Snapshot()
	var chains, groups []ruleList
	for id, c := range snap.Chains {
		chains = append(chains, ruleList{c.Name, id, named(c.Name, id), c.Rules})
	}
	for id, g := range snap.Security {
		title := "security group " + named(g.Name, id)
		groups = append(groups, ruleList{g.Name, id, title + " egress", g.Egress.Rules}, ruleList{g.Name, id, title + " ingress", g.Ingress.Rules})
	}
	rs, found := []debug.Rule{}, false
	for _, lists := range [][]ruleList{chains, groups} {
		slices.SortFunc(lists, func(x, y ruleList) int { return strings.Compare(x.title+x.id.String(), y.title+y.id.String()) })
		for _, l := range lists {
			if chain != "" && chain != l.of && chain != l.id.String() {
				continue
			}
			found = true
			for i := range l.rules {
				rs = append(rs, shown(snap, &l, &l.rules[i]))
			}
		}
	}
	if chain != "" && !found {
		return nil, fmt.Errorf("chain or security group %q: %w", chain, debug.ErrNotFound)
	}
	return rs, nil
}

func shown(snap *view.Snapshot, l *ruleList, r *view.Rule) debug.Rule {
	x := debug.Rule{ID: r.ID.String(), Name: r.Name, Chain: l.title, Position: r.Position, Match: r.Text(snap.AddressGroup), Action: r.Action()}
	if r.Verdict == view.VerdictJump {
		if to := snap.Chain(r.Jump); to != nil {
			x.Action += " " + to.Name
		}
	}
	if n := r.Counters; n != nil {
		x.Hits, x.Packets, x.Bytes = n.Hits.Load(), n.Packets.Load(), n.Bytes.Load()
	}
	return x
}

func named(name string, id uuid.UUID) string {
	if name == "" {
		return id.String()
	}
	return name
}
