package pathtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

func (t *Topology) securityGroup(name string) *view.SecurityGroup {
	g := t.Security[ID(name)]
	if g == nil {
		g = &view.SecurityGroup{ID: t.name(name), Name: name, Stateful: true}
		t.Security[g.ID] = g
	}
	return g
}

// securityRule adds a rule. Its words are six, proto=N, ports=N[-N], type=N, code=N, prefix=PREFIX, remote=SECURITY-GROUP and
// addresses=GROUP.
func (t *Topology) securityRule(group, way string, words []string) error {
	g := t.securityGroup(group)
	name := fmt.Sprintf("%s-%d", group, len(t.allow[g.ID])+1)
	r := &model.SecurityGroupRule{Meta: model.Meta{ID: t.name(name), Name: name}, GroupID: g.ID, EtherType: model.IPv4}
	switch way {
	case "in":
		r.Direction = model.Ingress
	case "out":
		r.Direction = model.Egress
	default:
		return fmt.Errorf("a rule is in or out")
	}
	octet := func(s string) *uint8 { n := uint8(bits(s, 8)); return &n }
	for _, w := range words {
		switch key, value, _ := strings.Cut(w, "="); key {
		case "six":
			r.EtherType = model.IPv6
		case "proto":
			r.Protocol = *octet(value)
		case "ports":
			x := numbers(value)
			r.PortMin, r.PortMax = &x.From, &x.To
		case "type":
			r.ICMPType = octet(value)
		case "code":
			r.ICMPCode = octet(value)
		case "prefix":
			r.RemotePrefix = prefix(value)
		case "remote":
			r.RemoteGroupID = t.securityGroup(value).ID
		case "addresses":
			r.RemoteAddressGroupID = ID(value)
		default:
			return fmt.Errorf("no word %q", key)
		}
	}
	t.allow[g.ID] = append(t.allow[g.ID], r)
	t.compile(g)
	return nil
}

func (t *Topology) compile(g *view.SecurityGroup) {
	var in, out []*model.SecurityGroupRule
	for _, r := range t.allow[g.ID] {
		if r.Direction == model.Ingress {
			in = append(in, r)
		} else {
			out = append(out, r)
		}
	}
	g.Ingress, g.Egress = view.NewAllowed(in), view.NewAllowed(out)
}

// Revoke takes the rule of the given name away.
func (t *Topology) Revoke(name string) {
	for id, rules := range t.allow {
		kept := slices.DeleteFunc(slices.Clone(rules), func(r *model.SecurityGroupRule) bool { return r.Name == name })
		if len(kept) == len(rules) {
			continue
		}
		t.allow[id] = kept
		g := *t.Security[id]
		t.Security[id] = &g
		t.compile(&g)
	}
}

func (t *Topology) members() {
	for id := range t.Security {
		t.Members(id)
	}
}

// Members gives a security group the addresses of the ports that are in it now.
func (t *Topology) Members(id uuid.UUID) {
	var ports []*model.Port
	for _, p := range t.Ports {
		if slices.Contains(p.SecurityGroups, id) {
			ports = append(ports, &model.Port{Addresses: p.Addrs})
		}
	}
	t.Groups[id] = view.Members(id, t.Security[id].Name, ports, nil)
}
