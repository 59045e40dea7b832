package native

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// recheck is how often a stream asks whether who listens still may.
const recheck = 2 * time.Second

// doorkeeper lets in who may, and tells of who may not.
type doorkeeper struct {
	who      *access.Authenticator
	log      *slog.Logger
	refusals *prometheus.CounterVec
}

func newDoorkeeper(c Config) *doorkeeper {
	d := &doorkeeper{who: c.Auth, log: c.Log, refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "viaduct_api_refusals_total", Help: "Requests, or parts of them, that were not allowed, by why.",
	}, []string{"reason"})}
	for _, r := range []string{unauthenticated, forbidden, hidden} {
		d.refusals.WithLabelValues(r)
	}
	c.Metrics.MustRegister(d.refusals)
	return d
}

// Reasons of refusals.
const (
	unauthenticated = "unauthenticated"
	forbidden       = "forbidden"
	hidden          = "hidden" // it was said not to exist
)

type requestKey struct{}

// admit makes next see only requests of somebody who may make them.
func (d *doorkeeper) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routeOf(r)
		p, err := d.who.Who(r)
		if err != nil && (route != access.Open || !errors.Is(err, access.ErrNobody)) {
			d.refuse(r, access.Principal{Name: "nobody"}, unauthenticated, err.Error())
			w.Header().Set("WWW-Authenticate", `Bearer realm="viaduct"`)
			answer(w, &problemBody{
				ErrorModel: huma.ErrorModel{Type: wire.ProblemUnauthenticated, Status: http.StatusUnauthorized, Title: http.StatusText(http.StatusUnauthorized), Detail: err.Error()},
				Fix:        "give a token (--token-file) or a client certificate (--cert, --key); an administrator makes them with \"viaduct token create\" and \"viaduct certs\"",
			})
			return
		}
		if !p.MayUse(route) {
			err := &access.DeniedError{Who: p, Verb: access.Verb(r.Method), What: r.URL.Path}
			d.refuse(r, p, forbidden, "role")
			answer(w, problem(err, nowhere))
			return
		}
		ctx, cancel := context.WithCancel(context.WithValue(access.With(r.Context(), p), requestKey{}, r))
		defer cancel()
		if r.URL.Path == "/v1/watch" {
			go d.again(ctx, cancel, r)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// again ends a stream when its listener is no longer let in.
func (d *doorkeeper) again(ctx context.Context, cancel func(), r *http.Request) {
	t := time.NewTicker(recheck)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := d.who.Who(r); err != nil {
				d.refuse(r, access.Of(ctx), unauthenticated, err.Error())
				cancel()
				return
			}
		}
	}
}

func (d *doorkeeper) refuse(r *http.Request, p access.Principal, reason, why string, more ...any) {
	d.refusals.WithLabelValues(reason).Inc()
	d.log.Warn("refused", append([]any{"who", p.Name, "role", p.Role, "tenant", p.Tenant, "from", r.RemoteAddr,
		"method", r.Method, "path", r.URL.Path, "reason", reason, "why", why}, more...)...)
}

// told is for access.Guard.
func (d *doorkeeper) told(ctx context.Context, x access.Refusal) {
	r, _ := ctx.Value(requestKey{}).(*http.Request)
	if r == nil {
		r = new(http.Request)
	}
	reason := hidden
	if !x.Who.Role.May(x.Verb, kindOf(x.What)) {
		reason = forbidden
	}
	d.refuse(r, x.Who, reason, x.Why, "verb", x.Verb, "what", x.What)
}

func kindOf(what string) model.Kind {
	k, _, _ := strings.Cut(what, " ")
	return model.Kind(k)
}

// routeOf is what a request needs. What is not listed here is about the installation.
func routeOf(r *http.Request) access.Route {
	switch path := r.URL.Path; path {
	case "/livez", "/readyz", "/version":
		return access.Open
	case "/v1/whoami", "/v1/transactions", "/v1/applied", "/v1/watch", "/openapi.json", "/openapi.yaml":
		return access.Known
	default:
		collection, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
		for _, k := range model.Kinds {
			if collection == wire.Plural(k) {
				return access.Known
			}
		}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return access.Inspect
	}
	return access.Configure
}

func answer(w http.ResponseWriter, p *problemBody) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

type whoamiOutput struct {
	Body wire.Principal
}

func registerWhoami(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "whoami", Summary: "Who the server takes you for", Tags: []string{"access"},
		Method: http.MethodGet, Path: "/v1/whoami", Responses: problemResponses(api, 401),
	}, func(ctx context.Context, _ *struct{}) (*whoamiOutput, error) {
		p := access.Of(ctx)
		return &whoamiOutput{wire.Principal{Name: p.Name, Role: string(p.Role), Tenant: p.Tenant, Host: p.Host}}, nil
	})
}
