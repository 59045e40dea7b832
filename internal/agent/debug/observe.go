package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one thing that an agent must have done to be ready, or, as advice, one that should be well: the agent serves without it.
type Check struct {
	Name   string
	Err    error // nil: done, or well
	Advice bool
}

// Observed is what may also be asked by the network: how the agent is, and its figures.
type Observed interface {
	// Checks are what readiness is made of, in the order in which it comes about, and then advice.
	Checks() []Check
	Metrics() prometheus.Gatherer
	Version() string
}

// ServeMetrics answers on l, which it closes, what Observed says and nothing else, until ctx ends.
func ServeMetrics(ctx context.Context, l net.Listener, o Observed) error {
	mux := http.NewServeMux()
	observe(mux, o)
	return serve(ctx, l, mux)
}

func observe(mux *http.ServeMux, o Observed) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { readyz(w, r, o.Checks()) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"version": o.Version(), "go_version": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics(), promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
}

// readyz is 503 with the first reason, or 200; ?verbose lists all checks in either case.
func readyz(w http.ResponseWriter, r *http.Request, checks []Check) {
	var failed error
	text := ""
	for _, c := range checks {
		if c.Err == nil {
			text += fmt.Sprintf("[+] %s ok\n", c.Name)
			continue
		}
		if c.Advice {
			text += fmt.Sprintf("[!] %s: %v\n", c.Name, c.Err)
			continue
		}
		text += fmt.Sprintf("[-] %s: %v\n", c.Name, c.Err)
		if failed == nil {
			failed = fmt.Errorf("%s: %w", c.Name, c.Err)
		}
	}
	verbose := r.URL.Query().Has("verbose")
	switch {
	case failed != nil && !verbose:
		problem(w, http.StatusServiceUnavailable, failed)
		return
	case failed != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	case !verbose:
		text = ""
	}
	fmt.Fprintf(w, "%s", text)
	if failed == nil {
		fmt.Fprintln(w, "ok")
	}
}

// profile serves pprof: on the socket alone, as profiles tell what is in memory.
func profile(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
