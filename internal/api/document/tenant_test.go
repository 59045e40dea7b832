package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// TestTenants: an operator describes the networks of two tenants that use the same names, and what it shares with them.
func TestTenants(t *testing.T) {
	s := mem.New()
	text := `
{kind: bridge, name: ext, shared: true}
---
{kind: bridge, name: blue, tenant: acme}
---
{kind: port, name: vm, tenant: acme, bridge: blue}
---
{kind: port, name: out, tenant: acme, bridge: ext}
---
{kind: bridge, name: blue, tenant: beta}
---
{kind: port, name: vm, tenant: beta, bridge: blue}
`
	if _, err := parse(t, text).Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	again, err := parse(t, text).Apply(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again {
		if c.Action != document.Unchanged {
			t.Errorf("applied again: %s", c)
		}
	}
	x, err := ref.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"acme", "beta"} {
		p := x.NamedFor(tenant, model.KindPort, "vm").(*model.Port)
		if b := x.Get(model.KindBridge, p.BridgeID).GetMeta(); b.Tenant != tenant {
			t.Errorf("%s's port is on %q's bridge", tenant, b.Tenant)
		}
		doc, err := document.Render(p, x)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parse(t, string(doc)).Apply(t.Context(), s); err != nil || again[0].Action != document.Unchanged {
			t.Errorf("%s\nis applied as %v, %v", doc, again, err)
		}
	}
	if _, err := x.Find(model.KindBridge, "blue"); err == nil || !strings.Contains(err.Error(), "give the id") {
		t.Errorf("a name of two tenants: %v", err)
	}
	for text, want := range map[string]string{
		"{kind: bridge, name: b, shared: maybe}":             "shared: \"maybe\" is not true or false",
		"{kind: bridge, name: b, tenant: [a]}":               "tenant: wants a text, this is a list",
		"{kind: bridge, name: b, tenant: 'a b'}":             "tenant: ' ' is not allowed",
		"{kind: host, name: h, tenant: acme}":                "tenant: a host belongs to the installation",
		"{kind: port, name: p, tenant: gamma, bridge: blue}": "no bridge \"blue\"",
	} {
		set, err := document.Parse(strings.NewReader(text), "f")
		if err == nil {
			_, err = set.Apply(t.Context(), s)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
