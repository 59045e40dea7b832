package native

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// readyTimeout is how long the store may take to answer before the server counts as not ready.
const readyTimeout = 2 * time.Second

type textOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

type versionOutput struct {
	Body wire.Version
}

type readyInput struct {
	Verbose string `query:"verbose" doc:"As with other servers; each check is always named."`
}

func registerHealth(api huma.API, mux *http.ServeMux, c Config) {
	op := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Summary: summary, Tags: []string{"health"}, Method: http.MethodGet, Path: path,
			Responses: problemResponses(api, 503)}
	}
	huma.Register(api, op("livez", "/livez", "The server runs"), func(context.Context, *struct{}) (*textOutput, error) {
		return text("ok\n"), nil
	})
	huma.Register(api, op("readyz", "/readyz", "The server can serve: its store answers"), func(ctx context.Context, _ *readyInput) (*textOutput, error) {
		start := time.Now()
		if err := ready(access.With(ctx, access.Principal{Name: "health", Role: access.ReadOnly}), c.Store); err != nil {
			return nil, problem(fmt.Errorf("%w: store: %w", store.ErrUnavailable, err), nowhere)
		}
		return text(fmt.Sprintf("[+] store answered in %s\nok\n", time.Since(start).Round(time.Microsecond))), nil
	})
	huma.Register(api, op("version", "/version", "Version of the server"), func(context.Context, *struct{}) (*versionOutput, error) {
		return &versionOutput{wire.Version{Version: c.Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}}, nil
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{}))
}

// ready asks the store for an object that cannot exist: the cheapest question that
// takes the way of all others.
func ready(ctx context.Context, s store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if _, err := s.Get(ctx, model.KindHost, uuid.Nil); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

func text(s string) *textOutput {
	return &textOutput{ContentType: "text/plain; charset=utf-8", Body: []byte(s)}
}
