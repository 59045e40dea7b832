package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

const balancing = `
{kind: router, name: r}
---
{kind: load_balancer, name: front, router: r, address: 10.0.1.80, listeners: [{protocol: tcp, port: 80, pool: web}, {protocol: udp, port: 53, pool: dns}]}
---
{kind: pool, name: web, session_persistence: source_ip, persistence_timeout: 60, health_monitor: {type: HTTP, delay: 2, expected_codes: 200-204}}
---
{kind: pool, name: dns}
---
{kind: pool_member, name: web-1, pool: web, address: 10.0.1.10, port: 8080, weight: 3, monitor_port: 8081}
---
{kind: pool_member, name: dns-1, pool: dns, address: 10.0.1.10, port: 53, weight: 0, admin_state_up: false}
`

// TestBalancersApplyAgain: load balancers are applied, applied again without effect, and so is what is shown of them.
func TestBalancersApplyAgain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	if _, err := parse(t, balancing).Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	unchanged := func(text string) {
		t.Helper()
		changes, err := parse(t, text).Apply(t.Context(), st)
		if err != nil || len(changes) != 6 {
			t.Fatalf("%v, %v", changes, err)
		}
		for _, c := range changes {
			if c.Action != document.Unchanged {
				t.Errorf("again: %s", c)
			}
		}
	}
	unchanged(balancing)
	x, err := ref.Load(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, k := range model.Kinds {
		for _, o := range x.List(k) {
			b, err := document.Render(o, x)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, string(b))
		}
	}
	unchanged(strings.Join(shown, "---\n"))
}
