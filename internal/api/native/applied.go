package native

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/applied"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

type appliedInput struct{ Body wire.AppliedQuestion }

type appliedOutput struct{ Body wire.Applied }

// registerApplied serves who waits until hosts have a change: anybody who may make one.
func registerApplied(api huma.API, c Config) {
	huma.Register(api, huma.Operation{
		OperationID: "applied", Summary: "How many hosts have applied a revision", Tags: []string{"changes"},
		Method: http.MethodPost, Path: "/v1/applied", Responses: problemResponses(api, 422, 503),
	}, func(ctx context.Context, in *appliedInput) (*appliedOutput, error) {
		a, err := whoApplied(ctx, c, in.Body.Revision)
		if err != nil {
			return nil, problem(err, body("revision"))
		}
		return &appliedOutput{a}, nil
	})
}

func whoApplied(ctx context.Context, c Config, revision int64) (a wire.Applied, err error) {
	if err := applied.Ask(ctx, c.Keys, revision); err != nil {
		return a, err
	}
	reports, err := applied.Reports(ctx, c.Keys)
	if err != nil {
		return a, err
	}
	visible, _, err := c.Store.List(ctx, model.KindHost) // none, to tenants
	if err != nil {
		return a, err
	}
	a.Running, a.Lagging = len(reports), []string{}
	for _, has := range reports {
		if has >= revision {
			a.Applied++
		}
	}
	for _, o := range visible {
		m := o.GetMeta()
		if has, running := reports[m.ID]; running && has < revision {
			a.Lagging = append(a.Lagging, cmp.Or(m.Name, m.ID.String()))
		}
	}
	slices.Sort(a.Lagging)
	return a, nil
}
