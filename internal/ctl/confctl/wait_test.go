package confctl

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// agents are hosts whose agents have applied what there was at a revision.
func agents(t *testing.T, s *mem.Store, names ...string) (report map[string]chan<- string) {
	report = make(map[string]chan<- string)
	for i, name := range names {
		id := uuid.UUID{15: byte(i + 1)}
		if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: id, Name: name}}}); err != nil {
			t.Fatal(err)
		}
		texts, ended := make(chan string), make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			defer close(ended)
			s.Announce(ctx, conf.ReportKey(id), texts)
		}()
		t.Cleanup(func() { cancel(); <-ended })
		texts <- conf.Report{Revision: 1}.Text()
		report[name] = texts
	}
	return report
}

// run runs the command line against the store.
func run(t *testing.T, s *mem.Store, args ...string) (exit.Code, string) {
	srv := httptest.NewServer(native.New(native.Config{
		Context: t.Context(), Store: s, Keys: s, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}))
	defer srv.Close()
	var out bytes.Buffer
	root := ctl.New(Command())
	root.SetOut(&out)
	root.SetErr(&out)
	code := ctl.Run(t.Context(), root, append([]string{"--server", srv.URL, "conf"}, args...))
	return exit.Code(code), out.String()
}

// Waiting ends when those that a change concerns have applied it, and by naming those that have not; who has no agent is not waited for.
func TestWaitApplied(t *testing.T) {
	s := mem.New()
	report := agents(t, s, "h1", "h2", "h3")
	if _, err := s.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Host{Meta: model.Meta{ID: uuid.UUID{15: 9}, Name: "dead"}}}); err != nil {
		t.Fatal(err)
	}
	const key = "agent.datapath.max_flow_count"
	report["h2"] <- conf.Report{Revision: 1 << 40}.Text()

	code, out := run(t, s, "set", key, "1", "--wait=applied", "--timeout=300ms")
	if code != exit.Timeout || !strings.Contains(out, "stored, but not applied yet by h1, h3") {
		t.Errorf("%d: %s", code, out)
	}
	code, out = run(t, s, "set", key, "2", "--host=h1", "--wait=applied", "--timeout=300ms")
	if code != exit.Timeout || !strings.Contains(out, "not applied yet by h1") {
		t.Errorf("%d: %s", code, out)
	}
	for _, args := range [][]string{
		{"set", key, "3", "--host=h2"}, {"set", key, "3", "--host=dead"}, {"set", key, "3", "--host=h2"}, // the last changes nothing
	} {
		if code, out := run(t, s, append(args, "--wait=applied", "--timeout=10s")...); code != exit.OK {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
	go func() {
		time.Sleep(2 * pollEvery)
		report["h1"] <- conf.Report{Revision: 1 << 40}.Text()
		report["h3"] <- conf.Report{Revision: 1 << 40}.Text()
	}()
	if code, out := run(t, s, "template", "set", "default", key+"=4", "--wait=applied", "--timeout=10s"); code != exit.OK || strings.Contains(out, " of 3 hosts") { // no terminal
		t.Errorf("%d: %s", code, out)
	}
}

// TestProgress: a line for each change of the count, of those that are waited for alone.
func TestProgress(t *testing.T) {
	s := mem.New()
	report := agents(t, s, "h1", "h2", "h3")
	srv := httptest.NewServer(native.New(native.Config{
		Context: t.Context(), Store: s, Keys: s, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}))
	defer srv.Close()
	cl, err := client.New(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out bytes.Buffer
	line := progress(&out)
	looks := 0
	tell := func(done, of int) {
		line(done, of)
		if looks++; looks%2 == 0 && looks <= 6 { // each count is seen twice, and told once
			report[[]string{"h1", "h2", "h3"}[looks/2-1]] <- conf.Report{Revision: 1 << 40}.Text()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := applied(ctx, cl, 1<<40, []wire.ConfChange{{Template: "default"}}, tell); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if lines[0] != "applied by 0 of 3 hosts" || lines[len(lines)-1] != "applied by 3 of 3 hosts" || len(lines) > 4 || looks <= len(lines) {
		t.Errorf("%d looks: %q", looks, lines)
	}
}
