package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

const shaped = `
{kind: bridge, name: b}
---
{kind: router, name: r}
---
{kind: qos_policy, name: silver, egress: {max_kbps: 10000, max_burst_kbps: 2000}, ingress: {max_kbps: 20000}, dscp: 0}
---
{kind: port, name: vm, bridge: b, qos_policy: silver}
---
{kind: port, name: tap, bridge: b}
---
{kind: mirror, name: of-port, port: vm, direction: in, before_filters: true, match: {proto: udp, in_ports: [vm], not: [in_ports]}, to_port: tap}
---
{kind: mirror, name: of-bridge, bridge: b, to_port: tap}
---
{kind: mirror, name: of-router, router: r, direction: out, to_port: tap}
`

// TestMirrorsAndPoliciesApplyAgain: applied, applied again without effect, and so is what is shown of them.
func TestMirrorsAndPoliciesApplyAgain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	if _, err := parse(t, shaped).Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	x, err := ref.Load(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, k := range model.Kinds {
		for _, o := range x.List(k) {
			text, err := document.Render(o, x)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, string(text))
		}
	}
	for _, text := range []string{shaped, strings.Join(shown, "---\n")} {
		changes, err := parse(t, text).Apply(t.Context(), st)
		if err != nil || len(changes) != 8 {
			t.Fatalf("%v, %v in\n%s", changes, err, text)
		}
		for _, c := range changes {
			if c.Action != document.Unchanged {
				t.Errorf("again: %s", c)
			}
		}
	}
}
