package debug

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/viaduct-net/viaduct/internal/base/trace"
)

// Agent is what the socket shows and changes. Methods are safe for concurrent use; errors that wrap this package's become their statuses.
type Agent interface {
	Bindings
	Observed
	Ports(ctx context.Context) ([]Port, error)
	Flows(ctx context.Context, port string, limit int) ([]Flow, error)
	Rules(ctx context.Context, chain string) ([]Rule, error)
	Stats(ctx context.Context) (Stats, error)
	Trace(ctx context.Context, r TraceRequest) (TraceAnswer, error)
	// Events calls fn for what is remembered and, when following, for what happens until ctx ends or fn fails.
	Events(ctx context.Context, follow bool, fn func(Event) error) error
	// Watch calls fn, on any goroutine but one at a time, until it returns false; stop ends it. fn must not block.
	Watch(ctx context.Context, port string, fn func(*trace.Node) bool) (stop func(), err error)
}

// Listen opens the socket for root alone. One that a dead agent has left behind is replaced.
func Listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers on l, which it closes, until ctx ends.
func Serve(ctx context.Context, l net.Listener, a Agent) error {
	return serve(ctx, l, handler(a))
}

func handler(a Agent) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) { serveEvents(a, w, r) })
	observe(mux, a)
	profile(mux)
	mux.HandleFunc("GET /v1/ports", func(w http.ResponseWriter, r *http.Request) {
		answer[[]Port](w)(a.Ports(r.Context()))
	})
	mux.HandleFunc("GET /v1/stats", func(w http.ResponseWriter, r *http.Request) {
		answer[Stats](w)(a.Stats(r.Context()))
	})
	mux.HandleFunc("GET /v1/flows", func(w http.ResponseWriter, r *http.Request) {
		limit, err := number(r, "limit")
		if err != nil {
			problem(w, http.StatusBadRequest, err)
			return
		}
		answer[[]Flow](w)(a.Flows(r.Context(), r.FormValue("port"), limit))
	})
	mux.HandleFunc("GET /v1/rules", func(w http.ResponseWriter, r *http.Request) {
		answer[[]Rule](w)(a.Rules(r.Context(), r.FormValue("chain")))
	})
	mux.HandleFunc("POST /v1/trace", func(w http.ResponseWriter, r *http.Request) {
		var req TraceRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&req); err != nil {
			problem(w, http.StatusBadRequest, err)
			return
		}
		answer[TraceAnswer](w)(a.Trace(r.Context(), req))
	})
	mux.HandleFunc("GET /v1/trace/live", func(w http.ResponseWriter, r *http.Request) { live(a, w, r) })
	registerBindings(mux, a)
	return mux
}

// WhatLost is what a tree is that stands for others: its text is how many did not fit into the stream.
const WhatLost = "lost"

// live streams one JSON tree a line. Trees that the client does not read in time are counted, never waited for.
func live(a Agent, w http.ResponseWriter, r *http.Request) {
	count, err := number(r, "count")
	if err != nil {
		problem(w, http.StatusBadRequest, err)
		return
	}
	trees := make(chan *trace.Node, 256)
	var lost atomic.Uint64
	stop, err := a.Watch(r.Context(), r.FormValue("port"), func(t *trace.Node) bool {
		select {
		case trees <- t:
		default:
			lost.Add(1)
		}
		return r.Context().Err() == nil
	})
	if err != nil {
		failed(w, err)
		return
	}
	defer stop()
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w)
	flush.Flush()
	enc := json.NewEncoder(w)
	for n := 0; count == 0 || n < count; n++ {
		select {
		case t := <-trees:
			if missed := lost.Swap(0); missed > 0 {
				if enc.Encode(&trace.Node{What: WhatLost, Text: strconv.FormatUint(missed, 10)}) != nil {
					return
				}
			}
			if enc.Encode(t) != nil || flush.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func number(r *http.Request, name string) (int, error) {
	v := r.FormValue(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, errors.New(name + ": want a whole number, 0 or more, not " + strconv.Quote(v))
	}
	return n, nil
}

func answer[T any](w http.ResponseWriter) func(T, error) {
	return func(v T, err error) {
		if err != nil {
			failed(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

func failed(w http.ResponseWriter, err error) {
	for status, cause := range statuses {
		if errors.Is(err, cause) {
			problem(w, status, err)
			return
		}
	}
	problem(w, http.StatusInternalServerError, err)
}

func problem(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(Problem{err.Error()})
}
