package native_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/viaduct-net/viaduct/internal/api/native"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func newServer(t *testing.T, s store.Store) *httptest.Server {
	t.Helper()
	keys, _ := s.(store.Keys)
	srv := httptest.NewServer(native.New(native.Config{
		Context: t.Context(), Store: s, Keys: keys, Version: "v1.2.3", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(srv.Close)
	return srv
}

// onStores runs a test over the store in memory and over a real etcd.
func onStores(t *testing.T, test func(*testing.T, *httptest.Server)) {
	t.Run("mem", func(t *testing.T) { test(t, newServer(t, mem.New())) })
	t.Run("etcd", func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		e, err := etcd.Embed(ctx, etcd.EmbedConfig{Dir: t.TempDir(), ClientURL: "http://127.0.0.1:0", Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		s, err := etcd.Open(etcd.Config{Endpoints: []string{e.Endpoint()}, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, newServer(t, s))
	})
}

// answer is what a request gave.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func do(t *testing.T, srv *httptest.Server, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, text: string(b)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(b, &a.body); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return a
}

// want fails unless the answer has the status, and its text all the parts.
func (a answer) want(t *testing.T, status int, parts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.text)
	}
	for _, p := range parts {
		if !strings.Contains(a.text, p) {
			t.Errorf("no %q in %s", p, a.text)
		}
	}
}

const (
	blueID  = "11111111-1111-4111-8111-111111111111"
	portID  = "22222222-2222-4222-8222-222222222222"
	otherID = "33333333-3333-4333-8333-333333333333"
)

func TestLifeOfAnObject(t *testing.T) {
	onStores(t, func(t *testing.T, srv *httptest.Server) {
		created := do(t, srv, "POST", "/v1/bridges", `{"name":"blue","id":"`+blueID+`"}`)
		created.want(t, 201, `"admin_state_up":true`)
		if got := created.header.Get("Location"); got != "/v1/bridges/"+blueID {
			t.Errorf("Location %q", got)
		}
		first := created.header.Get("ETag")

		got := do(t, srv, "GET", "/v1/bridges/"+blueID, "")
		got.want(t, 200)
		if d := cmp.Diff(created.body, got.body); d != "" || got.header.Get("ETag") != first {
			t.Errorf("created and got differ: %s", d)
		}

		replaced := do(t, srv, "PUT", "/v1/bridges/"+blueID, `{"name":"azure","admin_state_up":false}`, "If-Match", first)
		replaced.want(t, 200, `"admin_state_up":false`, `"name":"azure"`)
		if replaced.header.Get("ETag") == first {
			t.Error("the ETag is the same after a change")
		}
		do(t, srv, "PUT", "/v1/bridges/"+blueID, `{"name":"late"}`, "If-Match", first).
			want(t, 412, "bridge azure", "changed meanwhile", `"fix"`)
		do(t, srv, "DELETE", "/v1/bridges/"+blueID, "", "If-Match", first).want(t, 412, "changed meanwhile")

		do(t, srv, "GET", "/v1/bridges", "").want(t, 200, `"items":[{`, "azure")
		do(t, srv, "GET", "/v1/bridges?name=blue", "").want(t, 200, `"items":[]`)
		do(t, srv, "DELETE", "/v1/bridges/"+blueID, "", "If-Match", replaced.header.Get("ETag")).want(t, 204)
		do(t, srv, "GET", "/v1/bridges/"+blueID, "").want(t, 404, blueID)
	})
}

func TestTransaction(t *testing.T) {
	onStores(t, func(t *testing.T, srv *httptest.Server) {
		do(t, srv, "POST", "/v1/transactions", `{"ops":[
			{"create":{"port":{"id":"`+portID+`","name":"vm1","bridge_id":"`+blueID+`","addresses":["10.0.1.10"]}}},
			{"create":{"bridge":{"id":"`+blueID+`","name":"blue"}}}]}`).
			want(t, 200, `"addresses":["10.0.1.10/32"]`)

		// The last operation is wrong: the first has no effect either.
		do(t, srv, "POST", "/v1/transactions", `{"ops":[
			{"create":{"bridge":{"name":"green"}}},
			{"create":{"port":{"name":"vm2","bridge_id":"`+otherID+`"}}}]}`).
			want(t, 422, `"location":"body.ops[1].create.port.bridge_id"`, otherID)
		do(t, srv, "GET", "/v1/bridges?name=green", "").want(t, 200, `"items":[]`)

		for body, want := range map[string]string{
			`{"ops":[]}`:              "body.ops",
			`{"ops":[{}]}`:            "exactly one of create, replace, delete",
			`{"ops":[{"create":{}}]}`: "exactly one of chain, port_group",
			`{"ops":[{"replace":{"bridge":{"name":"blue"}}}]}`:                         `"location":"body.ops[0].replace.bridge.id"`,
			`{"ops":[{"create":{"port":{"mac":"x"}}}]}`:                                `"location":"body.ops[0].create.port.mac"`,
			`{"ops":[{"create":{"port":{"addreses":[]}}}]}`:                            "body.ops[0].create.port.addreses",
			`{"ops":[{"delete":{"kind":"switch","id":"` + blueID + `"}}]}`:             "body.ops[0].delete.kind",
			`{"ops":[{"delete":{"kind":"bridge","id":"` + blueID + `"},"create":{}}]}`: "exactly one of create",
		} {
			do(t, srv, "POST", "/v1/transactions", body).want(t, 422, want)
		}
		do(t, srv, "POST", "/v1/transactions", `{"ops":[
			{"delete":{"kind":"bridge","id":"`+blueID+`"}},{"delete":{"kind":"port","id":"`+portID+`"}}]}`).
			want(t, 200, `"objects":[]`)
	})
}

func TestRefusals(t *testing.T) {
	srv := newServer(t, mem.New())
	do(t, srv, "POST", "/v1/bridges", `{"name":"blue","id":"`+blueID+`"}`).want(t, 201)
	do(t, srv, "POST", "/v1/ports", `{"name":"vm1","id":"`+portID+`","bridge_id":"`+blueID+`"}`).want(t, 201)
	for _, tc := range []struct {
		method, path, body string
		status             int
		parts              []string
	}{
		{"GET", "/v1/bridges/" + otherID, "", 404, []string{"urn:viaduct:problem:not-found", otherID}},
		{"GET", "/v1/bridges/blue", "", 422, []string{`"location":"path.id"`}},
		{"GET", "/v1/bridges?nmae=blue", "", 422, []string{"query.nmae"}},
		{"GET", "/v1/switches", "", 404, nil},
		{"POST", "/v1/bridges", `{"name":"blue"}`, 409, []string{"urn:viaduct:problem:exists", "bridge blue"}},
		{"POST", "/v1/bridges", `{"nmae":"green"}`, 422, []string{`"location":"body.nmae"`}},
		{"POST", "/v1/bridges", `{"name":7}`, 422, []string{`"location":"body.name"`}},
		{"POST", "/v1/bridges", `{"name":`, 400, nil},
		{"POST", "/v1/ports", `{"name":"p","bridge_id":"` + blueID + `","addresses":["10.0.0.1","10.0.0.300"]}`, 422,
			[]string{`"location":"body.addresses[1]"`, "10.0.0.300"}},
		{"POST", "/v1/ports", `{"name":"p","bridge_id":"` + otherID + `"}`, 422, []string{`"location":"body.bridge_id"`, `"name":"p"`}},
		{"POST", "/v1/routes", `{"name":"r","destination":"10.0.0.0/8"}`, 422, []string{"router_id"}},
		{"POST", "/v1/routes", `{"router_id":"` + otherID + `","destination":"10.0.0.0/8","weight":0}`, 422, []string{"body.weight"}},
		{"POST", "/v1/bindings", `{"id":"` + otherID + `","port_id":"` + portID + `","host_id":"` + otherID + `","interface":"eth0"}`, 422,
			[]string{`"location":"body.id"`}},
		{"PUT", "/v1/bridges/" + otherID, `{"name":"x"}`, 404, nil},
		{"PUT", "/v1/bridges/" + blueID, `{"id":"` + otherID + `"}`, 422, []string{`"location":"body.id"`}},
		{"DELETE", "/v1/bridges/" + blueID, "", 409, []string{"urn:viaduct:problem:referenced", "port vm1", `"fix"`}},
	} {
		t.Run(tc.method+tc.path+tc.body, func(t *testing.T) {
			a := do(t, srv, tc.method, tc.path, tc.body)
			a.want(t, tc.status, tc.parts...)
			if ct := a.header.Get("Content-Type"); len(tc.parts) > 0 && ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
		})
	}
	do(t, srv, "PUT", "/v1/bridges/"+blueID, `{}`, "If-Match", "7").want(t, 422, "header.If-Match")
}

func TestWatch(t *testing.T) {
	onStores(t, func(t *testing.T, srv *httptest.Server) {
		do(t, srv, "POST", "/v1/bridges", `{"name":"blue","id":"`+blueID+`"}`).want(t, 201)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		next := func(kind string) map[string]any {
			t.Helper()
			var ev map[string]any
			if err := dec.Decode(&ev); err != nil || ev["type"] != kind {
				t.Fatalf("got %v, %v, want %s", ev, err, kind)
			}
			return ev
		}
		next("put")
		next("synced")
		do(t, srv, "DELETE", "/v1/bridges/"+blueID, "").want(t, 204)
		ev := next("delete")
		if id := ev["object"].(map[string]any)["bridge"].(map[string]any)["id"]; id != blueID || ev["last"] != true {
			t.Errorf("event %v", ev)
		}
	})
}

func TestHealth(t *testing.T) {
	s := mem.New()
	srv := newServer(t, s)
	do(t, srv, "GET", "/livez", "").want(t, 200, "ok")
	do(t, srv, "GET", "/readyz?verbose", "").want(t, 200, "[+] store", "ok")
	do(t, srv, "GET", "/version", "").want(t, 200, `"version":"v1.2.3"`)
	s.Disconnect()
	do(t, srv, "GET", "/livez", "").want(t, 200)
	do(t, srv, "GET", "/readyz", "").want(t, 503, "store")
	do(t, srv, "GET", "/v1/hosts", "").want(t, 503, "urn:viaduct:problem:unavailable")
	do(t, srv, "GET", "/metrics", "").want(t, 200,
		`viaduct_api_requests_total{code="503",route="GET /v1/hosts"} 1`, "viaduct_api_request_duration_seconds_bucket")
}

func TestGuard(t *testing.T) {
	srv := newServer(t, mem.New())
	do(t, srv, "GET", "/v1/hosts", "", "Host", "evil.example:80").want(t, 403, "loopback")
	do(t, srv, "POST", "/v1/hosts", `{}`, "Sec-Fetch-Site", "cross-site").want(t, 403)
	for _, host := range []string{"localhost", "127.0.0.1:1", "[::1]:80", "[::1]"} {
		do(t, srv, "GET", "/v1/hosts", "", "Host", host).want(t, 200)
	}
	for addr, ok := range map[string]bool{
		"127.0.0.1:8181": true, "[::1]:0": true, "localhost:80": true,
		":8181": false, "0.0.0.0:8181": false, "[::]:8181": false, "192.0.2.1:80": false, "example.org:80": false, "127.0.0.1": false,
	} {
		if err := native.CheckListen(addr, false); (err == nil) != ok {
			t.Errorf("%q: %v", addr, err)
		}
	}
	if err := native.CheckListen("0.0.0.0:8181", true); err != nil {
		t.Error(err)
	}
}

func TestSameOpenAPIEveryTime(t *testing.T) {
	a := do(t, newServer(t, mem.New()), "GET", "/openapi.json", "")
	b := do(t, newServer(t, mem.New()), "GET", "/openapi.json", "")
	if !bytes.Equal([]byte(a.text), []byte(b.text)) {
		t.Error("two servers describe themselves differently")
	}
}
