package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

const policy = `
{kind: bridge, name: b, pre_forwarding: in, post_forwarding: sub}
---
{kind: router, name: r, pre_routing: in, post_routing: sub}
---
{kind: port, name: vm, bridge: b, mac: "02:00:00:00:00:01", inbound_filter: in, outbound_filter: sub, port_groups: [vms], port_security: true, allowed_address_pairs: [{address: 10.0.0.0/28}, {mac: "02:00:00:00:00:02", address: 10.0.0.9}]}
---
{kind: chain, name: in}
---
{kind: chain, name: sub}
---
{kind: port_group, name: vms}
---
{kind: address_group, name: nets, addresses: [10.0.0.0/8, "fd00::1"]}
---
kind: rule
name: first
chain: in
position: 1
match: {proto: tcp, src_group: nets, dst_ports: 80-90, in_ports: [vm], port_group: vms, traversed: r, eth_src: "02:00:00:00:00:00/ff:00:00:00:00:00", tos: 0, not: [src_group]}
action: jump
jump: sub
---
{kind: rule, name: second, chain: in, position: 2, action: drop, match: {invert: true, eth_type: arp}}
`

// TestPolicyAppliesAgain: a network with filters is applied, applied again without effect, and
// so is what is shown of it.
func TestPolicyAppliesAgain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	if _, err := parse(t, policy).Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	unchanged := func(text string) {
		t.Helper()
		changes, err := parse(t, text).Apply(t.Context(), st)
		if err != nil || len(changes) != 9 {
			t.Fatalf("%v, %v", changes, err)
		}
		for _, c := range changes {
			if c.Action != document.Unchanged {
				t.Errorf("again: %s", c)
			}
		}
	}
	unchanged(policy)
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
	rule := x.Named(model.KindRule, "first").(*model.Rule)
	const want = "in_ports [vm], port_group vms, traversed r, eth_src 02:00:00:00:00:00/ff:00:00:00:00:00, tos 0, proto tcp, not src_group nets, dst_ports 80-90"
	if got := document.MatchText(&rule.Match, x); got != want {
		t.Errorf("condition\n%s\nwant\n%s", got, want)
	}
	if got := document.MatchText(&x.Named(model.KindRule, "second").(*model.Rule).Match, x); got != "not (eth_type arp)" {
		t.Errorf("condition %s", got)
	}
}

func TestPolicyErrorsHaveTheirPlace(t *testing.T) {
	st := mem.New()
	defer st.Close()
	for _, c := range []struct{ text, want string }{
		{"{kind: rule, name: r, chain: c, position: 1, action: drop}", `f:1:30: rule r: chain: no chain "c"`},
		{"{kind: chain, name: c}\n---\n{kind: rule, name: r, chain: c, position: 1, action: drop, match: {dst_ports: 80}}",
			"rule r: match.dst_ports: needs proto"},
		{"{kind: chain, name: c}\n---\n{kind: rule, name: r, chain: c, position: 1, action: drop, match: {proto: tcp, dst_ports: 90-80}}",
			"rule r: match.dst_ports: 90-80 is not a range"},
		{"{kind: chain, name: c}\n---\n{kind: rule, name: r, chain: c, position: 1, action: jump, jump: c}", "rule r: jump: chain c leads back"},
		{"{kind: chain, name: c}\n---\n{kind: rule, name: r, chain: c, position: 1, action: drop, match: {in_ports: [vm]}}", `match.in_ports[0]: no port "vm"`},
		{"{kind: chain, name: c}\n---\n{kind: rule, name: r, chain: c, position: 1, action: drop, match: {source: 10.0.0.1}}", "match.source: unknown field"},
	} {
		s, err := document.Parse(strings.NewReader(c.text), "f")
		if err == nil {
			_, err = s.Apply(t.Context(), st)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n%v, want %q", c.text, err, c.want)
		}
	}
}
