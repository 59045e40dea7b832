package document

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Render writes an object as the document that Apply would leave unchanged. x gives
// the names of what it refers to.
func Render(o model.Object, x *ref.Index) ([]byte, error) {
	var doc yaml.MapSlice
	add := func(key string, value any) { doc = append(doc, yaml.MapItem{Key: key, Value: value}) }
	text := func(key, value string) {
		if value != "" {
			add(key, value)
		}
	}
	link := func(key string, kind model.Kind, id uuid.UUID) {
		if id != uuid.Nil {
			add(key, x.Label(kind, id))
		}
	}
	m := o.GetMeta()
	add("kind", string(o.Kind()))
	text("name", m.Name)
	if o.Kind() != model.KindBinding {
		add("id", m.ID.String())
	}
	text("tenant", m.Tenant)
	if m.Shared {
		add("shared", true)
	}
	switch o := o.(type) {
	case *model.Bridge:
		add("admin_state_up", o.AdminStateUp)
		link("pre_forwarding", model.KindChain, o.PreForwardingID)
		link("post_forwarding", model.KindChain, o.PostForwardingID)
	case *model.Router:
		add("admin_state_up", o.AdminStateUp)
		link("pre_routing", model.KindChain, o.PreRoutingID)
		link("post_routing", model.KindChain, o.PostRoutingID)
	case *model.Port:
		w := wire.FromModel(o).(*wire.Port)
		link("bridge", model.KindBridge, o.BridgeID)
		link("router", model.KindRouter, o.RouterID)
		link("peer", model.KindPort, o.PeerID)
		add("admin_state_up", o.AdminStateUp)
		text("mac", w.MAC)
		if len(w.Addresses) > 0 {
			add("addresses", w.Addresses)
		}
		if o.Masquerade {
			add("masquerade", true)
		}
		link("inbound_filter", model.KindChain, o.InboundFilterID)
		link("outbound_filter", model.KindChain, o.OutboundFilterID)
		if len(o.PortGroups) > 0 {
			var groups []string
			for _, id := range o.PortGroups {
				groups = append(groups, x.Label(model.KindPortGroup, id))
			}
			add("port_groups", groups)
		}
		if o.VLAN != 0 {
			add("vlan", o.VLAN)
		}
		link("qos_policy", model.KindQoSPolicy, o.QoSPolicyID)
		if o.PortSecurity {
			add("port_security", true)
		}
		if len(w.AllowedAddressPairs) > 0 {
			var pairs []yaml.MapSlice
			for i := range w.AllowedAddressPairs {
				pairs = append(pairs, given(&w.AllowedAddressPairs[i]))
			}
			add("allowed_address_pairs", pairs)
		}
		if o.SecurityGroups != nil {
			groups := []string{}
			for _, id := range o.SecurityGroups {
				groups = append(groups, x.Label(model.KindSecurityGroup, id))
			}
			add("security_groups", groups)
		}
	case *model.Host:
		var ends []yaml.MapSlice
		for _, t := range o.Tunnels {
			ends = append(ends, yaml.MapSlice{{Key: "zone", Value: x.Label(model.KindZone, t.ZoneID)}, {Key: "address", Value: t.Address.String()}})
		}
		if len(ends) > 0 {
			add("tunnels", ends)
		}
	case *model.AddressGroup:
		if w := wire.FromModel(o).(*wire.AddressGroup); len(w.Addresses) > 0 {
			add("addresses", w.Addresses)
		}
	case *model.QoSPolicy:
		renderQoSPolicy(o, add)
	case *model.Mirror:
		link("port", model.KindPort, o.PortID)
		link("bridge", model.KindBridge, o.BridgeID)
		link("router", model.KindRouter, o.RouterID)
		text("direction", string(o.Direction))
		if o.BeforeFilters {
			add("before_filters", true)
		}
		if m := wire.FromCondition(&o.Match, label(x)); m != nil {
			add("match", given(m))
		}
		link("to_port", model.KindPort, o.ToPortID)
	case *model.SecurityGroup:
		add("stateful", o.Stateful)
	case *model.PortGroup:
		if o.Stateful {
			add("stateful", true)
		}
	case *model.SecurityGroupRule:
		doc = append(doc, given(securityGroupRule(o, x))...)
	case *model.Rule:
		link("chain", model.KindChain, o.ChainID)
		add("position", o.Position)
		if m := wire.FromCondition(&o.Match, label(x)); m != nil {
			add("match", given(m))
		}
		add("action", string(o.Action))
		link("jump", model.KindChain, o.JumpID)
		renderEffect(o, x, add, text)
	case *model.Route:
		w := wire.FromModel(o).(*wire.Route)
		link("router", model.KindRouter, o.RouterID)
		text("destination", w.Destination)
		text("source", w.Source)
		text("next_hop", w.NextHop)
		link("port", model.KindPort, o.PortID)
		text("gateway", w.Gateway)
		add("weight", o.Weight)
	case *model.Subnet:
		renderSubnet(o, x, add, text)
	case *model.LoadBalancer, *model.Pool, *model.PoolMember:
		renderBalancer(o, x, add)
	case *model.Binding:
		link("port", model.KindPort, o.PortID)
		link("host", model.KindHost, o.HostID)
		text("interface", o.Interface)
	case *model.FloatingIP:
		link("port", model.KindPort, o.PortID)
		text("address", o.Address.String())
		text("fixed_address", o.FixedAddress.String())
	}
	return yaml.Marshal(doc)
}

// renderEffect adds what a rule does beyond its action.
func renderEffect(o *model.Rule, x *ref.Index, add func(string, any), text func(string, string)) {
	text("then", string(o.Then))
	var targets []yaml.MapSlice
	for _, t := range wire.FromTargets(o.Targets) {
		targets = append(targets, given(&t))
	}
	if targets != nil {
		add("targets", targets)
	}
	if r := o.Redirect; r != (model.Redirect{}) {
		add("redirect", given(&wire.Redirect{Port: x.Label(model.KindPort, r.PortID), Egress: r.Egress, FailOpen: r.FailOpen}))
	}
	if o.VLAN != 0 {
		add("vlan", o.VLAN)
	}
	if o.DSCP != nil {
		add("dscp", int(*o.DSCP))
	}
	if o.Log {
		add("log", true)
	}
}

// label calls objects as x does; a kind of "" is a bridge's or a router's.
func label(x *ref.Index) func(model.Kind, uuid.UUID) string {
	return func(k model.Kind, id uuid.UUID) string {
		if k == "" {
			if k = model.KindBridge; x.Get(k, id) == nil {
				k = model.KindRouter
			}
		}
		return x.Label(k, id)
	}
}

// MatchText is a condition on one line, such as "proto tcp, not src 10.0.0.0/8"; "any" for what fits everything.
func MatchText(m *model.Condition, x *ref.Index) string {
	w := wire.FromCondition(m, label(x))
	if w == nil {
		return "any"
	}
	var parts []string
	for _, item := range given(w) {
		name := item.Key.(string)
		if name == "invert" || name == "not" {
			continue
		}
		value := fmt.Sprint(reflect.Indirect(reflect.ValueOf(item.Value)))
		if value == "true" { // of those that are given or not
			value = ""
		}
		if slices.Contains(w.Not, name) {
			name = "not " + name
		}
		parts = append(parts, strings.TrimSpace(name+" "+value))
	}
	text := strings.Join(parts, ", ")
	if m.Invert {
		return "not (" + text + ")"
	}
	return text
}

// given lists the fields of a struct that are not zero, by their yaml names.
func given(v any) yaml.MapSlice {
	var m yaml.MapSlice
	s := reflect.Indirect(reflect.ValueOf(v))
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("yaml"), ",")
		if f := s.Field(i); !f.IsZero() {
			m = append(m, yaml.MapItem{Key: name, Value: f.Interface()})
		}
	}
	return m
}
