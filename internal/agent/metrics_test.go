package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/server"
)

func (h *rig) ports() []debug.Port {
	h.Helper()
	ps, err := h.client.Ports(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return ps
}

func (h *rig) inject(frame []byte) {
	h.Helper()
	if err := h.dp.Inject("lo", fake.Packet{Frame: frame}); err != nil {
		h.Fatal(err)
	}
}

// arp has the VM ask for its gateway.
func (h *rig) arp() { h.inject(packet.BuildARPRequest(nil, vmMAC, addr("10.0.0.5"), addr("10.0.0.1"))) }

// scrape reads /metrics on the debug socket.
func (h *rig) scrape() (string, map[string]*dto.MetricFamily) {
	h.Helper()
	text, err := h.client.Metrics(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		h.Fatalf("%v in\n%s", err, text)
	}
	return text, families
}

// value adds up the series of a family that have the labels, given as name, value, name, value.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) (sum float64) {
	t.Helper()
	f := families[name]
	if f == nil {
		t.Fatalf("no metric %s", name)
	}
	for _, m := range f.Metric {
		has := map[string]string{}
		for _, l := range m.Label {
			has[l.GetName()] = l.GetValue()
		}
		fits := true
		for i := 0; i < len(labels); i += 2 {
			fits = fits && has[labels[i]] == labels[i+1]
		}
		if fits {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestMetricsAddUp sends packets that meet different ends, and holds the figures against each other.
func TestMetricsAddUp(t *testing.T) {
	h := start(t, network()...)
	h.await("the port to be bound", func() bool { ps := h.ports(); return len(ps) == 1 && ps[0].Status == debug.StatusUp })
	for range 5 {
		h.arp()
	}
	bad := packet.BuildUDP(nil, packet.Ether{Src: vmMAC, Dst: gwMAC}, packet.IP{Src: packet.Addr4([]byte{10, 0, 0, 5}), Dst: packet.Addr4([]byte{203, 0, 113, 1}), TTL: 64}, 1, 2, nil)
	h.inject(bad)
	h.await("the packets to end", func() bool {
		ps := h.ports()
		return ps[0].Admitted > 0 && ps[0].Drops["no_route"] == 1 && ps[0].InFlight == 0 && h.stats().InFlight == 0
	})
	_, m := h.scrape()
	vm := []string{"port", "vm"}
	admitted := value(t, m, "viaduct_port_admitted_packets_total", vm...)
	ended := value(t, m, "viaduct_port_executed_packets_total", vm...) + value(t, m, "viaduct_port_consumed_packets_total", vm...) +
		value(t, m, "viaduct_port_waiting_packets", vm...)
	for _, stage := range []string{"prep", "sim", "xlate", "worker"} {
		ended += value(t, m, "viaduct_port_dropped_packets_total", append(vm, "stage", stage)...)
	}
	if admitted == 0 || admitted != ended {
		t.Errorf("%v misses admitted at the port, %v ended", admitted, ended)
	}
	if n := value(t, m, "viaduct_port_dropped_packets_total", append(vm, "reason", "no_route")...); n != 1 {
		t.Errorf("%v dropped for want of a route", n)
	}
	if n := value(t, m, "viaduct_port_setup_seconds", vm...); n != admitted {
		t.Errorf("%v set-ups measured of %v", n, admitted)
	}
	in := value(t, m, "viaduct_worker_packets_in_total")
	if out := value(t, m, "viaduct_worker_packets_executed_total") + value(t, m, "viaduct_worker_packets_consumed_total") +
		value(t, m, "viaduct_worker_packets_dropped_total") + value(t, m, "viaduct_worker_packets_waiting"); in != out {
		t.Errorf("%v packets in, %v accounted for", in, out)
	}
	if taken, back := value(t, m, "viaduct_tokens_taken_total"), value(t, m, "viaduct_tokens_returned_total"); taken != back || taken != admitted {
		t.Errorf("%v tokens taken, %v returned, %v admitted", taken, back, admitted)
	}
	if all, held := value(t, m, "viaduct_tokens_capacity"), value(t, m, "viaduct_tokens_held"); all != held {
		t.Errorf("%v tokens, %v held, none in flight", all, held)
	}
	for _, name := range []string{"viaduct_agent_ready", "viaduct_mirror_following"} {
		if value(t, m, name) != 1 {
			t.Errorf("%s is not 1", name)
		}
	}
	if n := value(t, m, "viaduct_agent_tables_refused_total"); n != float64(offheap.Refused()) {
		t.Errorf("%v maps were refused, %v are told", offheap.Refused(), n)
	}
}

// TestMetricNames has Prometheus's own linter judge them.
func TestMetricNames(t *testing.T) {
	h := start(t, network()...)
	text, _ := h.scrape()
	promtool := exec.CommandContext(t.Context(), need(t, "promtool"), "check", "metrics")
	promtool.Stdin = strings.NewReader(text)
	if out, err := promtool.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPortsBeyondTheBoundAreAddedUp(t *testing.T) {
	h := start(t, network()...)
	ports := h.ports()
	sum := ports[0]
	sum.Drops = map[string]uint64{"no_route": 1}
	sum.Add(&sum)
	if sum.Drops["no_route"] != 2 || sum.Credit != 2*ports[0].Credit || len(sum.Delays) != len(ports[0].Delays) {
		t.Errorf("%+v", sum)
	}
}

func TestMetricsListen(t *testing.T) {
	for _, m := range []Metrics{
		{Listen: "0.0.0.0:0"}, {Listen: "here"}, {Listen: "0.0.0.0:0", TLS: pki.Files{Cert: "a", Key: "b"}}, {Listen: "127.0.0.1:0", TLS: pki.Files{CA: "a"}},
	} {
		if l, err := m.open(); err == nil {
			l.Close()
			t.Errorf("%+v was taken", m)
		}
	}
	l, err := Metrics{Listen: "127.0.0.1:0"}.open()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v: make setup installs Debian's package prometheus", err)
	}
	return path
}

// TestDashboard has a real Prometheus read a server and an agent, and asks it every query of the dashboard: each must have an
// answer, so that a metric that is renamed, or a label that is gone, is not found out by an operator at night.
func TestDashboard(t *testing.T) {
	h := start(t, network()...)
	dir := t.TempDir()
	agent := h.observed()
	api := serveAPI(t, dir)
	prometheus := runPrometheus(t, dir, agent, api)

	c, err := client.New("http://" + api)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	queries := dashboard(t)
	missing := make(map[string]string)
	// Rates need something that goes on between two scrapes.
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		h.arp()
		if _, err := c.Version(t.Context()); err != nil {
			t.Fatal(err)
		}
		clear(missing)
		for _, q := range queries {
			if answer := ask(t, prometheus, q); answer != "" {
				missing[q] = answer
			}
		}
		if len(missing) == 0 {
			return
		}
	}
	for q, answer := range missing {
		t.Errorf("%s: %s", q, answer)
	}
}

// dashboard lists the queries of the dashboard, with its variables filled in.
func dashboard(t *testing.T) (queries []string) {
	t.Helper()
	b, err := os.ReadFile("../../packaging/grafana/viaduct.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, x := range p.Targets {
			q := strings.NewReplacer("$__rate_interval", "10s", "$host", ".*").Replace(x.Expr)
			if strings.Contains(q, "$") {
				t.Errorf("%s: a variable that this test does not know", x.Expr)
			}
			queries = append(queries, q)
		}
	}
	if len(queries) < 30 {
		t.Errorf("only %d queries", len(queries))
	}
	return queries
}

// ask is empty when the query has an answer, else what there was instead.
func ask(t *testing.T, prometheus, query string) string {
	resp, err := http.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var a struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err.Error()
	}
	switch {
	case a.Status != "success":
		return a.Error
	case len(a.Data.Result) == 0:
		return "no series"
	}
	return ""
}

// observed serves the agent's metrics on the loopback and returns where.
func (h *rig) observed() string {
	h.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := h.client.Metrics(r.Context())
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, text)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); srv.Serve(l) }()
	h.Cleanup(func() { srv.Close(); <-ended })
	return l.Addr().String()
}

func serveAPI(t *testing.T, dir string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan server.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Config{
			Listen: []string{"127.0.0.1:0"}, DataDir: filepath.Join(dir, "data"), EtcdListen: "unix://" + filepath.Join(dir, "e.sock"),
			Log: slog.New(slog.DiscardHandler), Ready: func(a server.Addresses) { ready <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case a := <-ready:
		return strings.TrimPrefix(a.API[0], "http://")
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return ""
}

func runPrometheus(t *testing.T, dir string, targets ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	config := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs: [{job_name: viaduct, static_configs: [{targets: [%s]}]}]\n", strings.Join(targets, ", "))
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(need(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+at)
	cmd.Stderr, cmd.SysProcAttr = &log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return "http://" + at
}
