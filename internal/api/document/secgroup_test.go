package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

const secured = `
{kind: bridge, name: b}
---
{kind: port, name: vm, bridge: b, mac: "02:00:00:00:00:01", port_security: true, security_groups: [web, db]}
---
{kind: port, name: shut, bridge: b, mac: "02:00:00:00:00:02", port_security: true, security_groups: []}
---
{kind: port, name: usual, bridge: b, mac: "02:00:00:00:00:03", port_security: true}
---
{kind: security_group, name: web}
---
{kind: security_group, name: db, stateful: false}
---
{kind: address_group, name: office, addresses: [192.0.2.0/24]}
---
{kind: security_group_rule, name: http, security_group: web, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 443, remote_ip_prefix: 10.0.0.0/8}
---
{kind: security_group_rule, name: ping, security_group: web, direction: ingress, ethertype: IPv6, protocol: icmpv6, icmp_type: 128, icmp_code: 0, remote_group: web}
---
{kind: security_group_rule, name: out, security_group: web, direction: egress, protocol: any}
---
{kind: security_group_rule, name: vrrp, security_group: db, direction: ingress, protocol: 112, remote_address_group: office}
`

// TestSecurityGroupsApplyAgain: groups are applied, applied again without effect, and so is what is shown of them.
func TestSecurityGroupsApplyAgain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	if _, err := parse(t, secured).Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	unchanged := func(text string) {
		t.Helper()
		changes, err := parse(t, text).Apply(t.Context(), st)
		if err != nil || len(changes) != 11 {
			t.Fatalf("%v, %v", changes, err)
		}
		for _, c := range changes {
			if c.Action != document.Unchanged {
				t.Errorf("again: %s", c)
			}
		}
	}
	unchanged(secured)
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
	for name, want := range map[string]string{
		"http": "IPv4 tcp 80-443 from 10.0.0.0/8", "ping": "IPv6 icmpv6 type 128 code 0 from group web", "out": "IPv4", "vrrp": "IPv4 vrrp from address group office",
	} {
		if got := document.AllowsText(x.Named(model.KindSecurityGroupRule, name).(*model.SecurityGroupRule), x); got != want {
			t.Errorf("%s allows %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]int{"vm": 2, "shut": 0, "usual": -1} {
		p, n := x.Named(model.KindPort, name).(*model.Port), -1
		if p.SecurityGroups != nil {
			n = len(p.SecurityGroups)
		}
		if n != want {
			t.Errorf("port %s is in %d groups, want %d", name, n, want)
		}
	}
}

func TestSecurityGroupErrorsHaveTheirPlace(t *testing.T) {
	st := mem.New()
	defer st.Close()
	const group = "{kind: security_group, name: g}\n---\n"
	for _, c := range []struct{ text, want string }{
		{"{kind: security_group_rule, name: r, security_group: g, direction: ingress}", `security_group_rule r: security_group: no security_group "g"`},
		{group + "{kind: security_group_rule, name: r, security_group: g}", "direction: is missing"},
		{group + "{kind: security_group_rule, name: r, security_group: g, direction: ingress, protocol: http}", `protocol: "http" is none of tcp, udp`},
		{group + "{kind: security_group_rule, name: r, security_group: g, direction: ingress, port_range_min: 1, port_range_max: 2}", "port_range_min: needs protocol"},
		{group + "{kind: security_group_rule, name: r, security_group: g, direction: ingress, protocol: tcp, port_range_min: 1, port_range_max: 70000}",
			`port_range_max: "70000" is not within 0 and 65535`},
		{group + "{kind: security_group_rule, name: r, security_group: g, direction: ingress, remote_group: h}", `remote_group: no security_group "h"`},
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
