package document_test

import (
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// base is a network in which the documents of TestBadInput make no sense.
const base = `
- {kind: bridge, name: net}
- {kind: router, name: r}
- {kind: chain, name: one}
- {kind: chain, name: two}
- {kind: rule, name: there, chain: one, position: 1, action: jump, jump: two}
- {kind: security_group, name: web}
- {kind: subnet, name: n, bridge: net, cidr: 10.0.0.0/24, gateway: 10.0.0.1}
- {kind: port, name: out, router: r, addresses: [192.0.2.1/30]}
`

// TestBadInput: what can only be a mistake is refused, whoever makes it, with the place and the reason; nothing of it is stored.
func TestBadInput(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"overlapping subnets", "{kind: subnet, name: m, bridge: net, cidr: 10.0.0.128/25}",
			"subnet m: cidr: 10.0.0.128/25 overlaps 10.0.0.0/24 of subnet n"},
		{"overlapping subnets of a router", "{kind: port, name: p, router: r, addresses: [192.0.2.2/29]}",
			"port p: addresses[0]: 192.0.2.2/29 overlaps 192.0.2.1/30 of port out"},
		{"address outside its subnet", "{kind: port, name: vm, bridge: net, addresses: [10.0.1.5]}",
			"port vm: addresses[0]: 10.0.1.5 is outside the bridge's subnets"},
		{"gateway outside its subnet", "{kind: subnet, name: m, bridge: net, cidr: 10.1.0.0/24, gateway: 10.2.0.1}",
			"subnet m: gateway: 10.2.0.1 is outside 10.1.0.0/24"},
		{"next hop outside the link", "{kind: route, name: x, router: r, destination: 0.0.0.0/0, next_hop: port, port: out, gateway: 10.9.9.9}",
			"route x: gateway: 10.9.9.9 is in no subnet of port out"},
		{"ports without protocol", "{kind: rule, name: x, chain: one, position: 2, match: {dst_ports: 80}, action: drop}",
			"rule x: match.dst_ports: needs proto to be tcp, udp or sctp"},
		{"ports without protocol in a security group", "{kind: security_group_rule, name: x, security_group: web, direction: ingress, port_range_min: 80, port_range_max: 80}",
			"port_range_min: needs protocol to be tcp"},
		{"impossible range", "{kind: rule, name: x, chain: one, position: 2, match: {proto: tcp, dst_ports: 90-80}, action: drop}",
			"rule x: match.dst_ports: "},
		{"impossible number", "{kind: rule, name: x, chain: one, position: 2, match: {proto: tcp, dst_ports: 70000}, action: drop}",
			"rule x: match.dst_ports: "},
		{"impossible range in a security group", "{kind: security_group_rule, name: x, security_group: web, direction: ingress, protocol: tcp, port_range_min: 90, port_range_max: 80}",
			"port_range_min: 90 is more than port_range_max 80"},
		{"impossible range of a translation", "{kind: rule, name: x, chain: one, position: 2, action: snat, targets: [{addresses: 10.0.0.9-10.0.0.5}]}",
			"rule x: targets[0].addresses: 10.0.0.9 comes after 10.0.0.5"},
		{"impossible mark", "{kind: rule, name: x, chain: one, position: 2, action: set_dscp, dscp: 64}", "dscp: \"64\" is not within 0 and 63"},
		{"chain that jumps to itself", "{kind: rule, name: x, chain: two, position: 1, action: jump, jump: two}",
			"rule x: jump: chain two leads back to this chain"},
		{"chains that jump in a circle", "{kind: rule, name: x, chain: two, position: 1, action: jump, jump: one}",
			"rule x: jump: chain one leads back to this chain"},
		{"address group in itself", "{kind: address_group, name: office, addresses: [10.0.0.0/24, office]}",
			"address_group office: addresses[1]: \"office\""},
		{"security group in itself", "{kind: security_group, name: all, security_groups: [all]}",
			"security_group all: security_groups: unknown field"},
		{"port group in itself", "{kind: port_group, name: vms, port_groups: [vms]}",
			"port_group vms: port_groups: unknown field"},
		{"port that is its own peer", "{kind: port, name: p, bridge: net, peer: p}", "port p: peer: is the port itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := mem.New()
			if _, err := parse(t, base).Apply(t.Context(), st); err != nil {
				t.Fatal(err)
			}
			revision := func() int64 {
				_, at, err := st.List(t.Context(), model.KindRule)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			before := revision()
			if err := try(t, st, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			if revision() != before {
				t.Error("something was stored")
			}
		})
	}
	// The default group's members may talk to each other: this is no circle, for rules name whose ports are at the other end.
	if err := try(t, mem.New(), "[{kind: security_group, name: default}, {kind: security_group_rule, name: x, security_group: default, direction: ingress, remote_group: default}]"); err != nil {
		t.Error(err)
	}
}

// try applies documents.
func try(t *testing.T, st store.Store, text string) error {
	t.Helper()
	s, err := document.Parse(strings.NewReader(text), "f")
	if err == nil {
		_, err = s.Apply(t.Context(), st)
	}
	return err
}
