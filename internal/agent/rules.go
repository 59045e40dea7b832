package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Rules implements debug.Agent.
func (a *Agent) Rules(_ context.Context, chain string) ([]debug.Rule, error) {
	snap := a.mirror.Snapshot()
	var chains []*view.Chain
	for id, c := range snap.Chains {
		if chain == "" || chain == c.Name || chain == id.String() {
			chains = append(chains, c)
		}
	}
	if chain != "" && len(chains) == 0 {
		return nil, fmt.Errorf("chain %q: %w", chain, debug.ErrNotFound)
	}
	slices.SortFunc(chains, func(x, y *view.Chain) int { return strings.Compare(x.Name+x.ID.String(), y.Name+y.ID.String()) })
	rs := []debug.Rule{}
	for _, c := range chains {
		name := c.Name
		if name == "" {
			name = c.ID.String()
		}
		for i := range c.Rules {
			r := &c.Rules[i]
			x := debug.Rule{ID: r.ID.String(), Name: r.Name, Chain: name, Position: r.Position, Match: r.Match.String(), Action: r.Verdict.String()}
			if r.Verdict == view.VerdictJump {
				if to := snap.Chain(r.Jump); to != nil {
					x.Action += " " + to.Name
				}
			}
			if r.Hits != nil {
				x.Hits = r.Hits.Load()
			}
			rs = append(rs, x)
		}
	}
	return rs, nil
}
