package ctl

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// columns are the table of each kind.
var columns = map[model.Kind][]string{
	model.KindBridge:  {"NAME", "ADMIN"},
	model.KindRouter:  {"NAME", "ADMIN"},
	model.KindZone:    {"NAME"},
	model.KindHost:    {"NAME", "TUNNELS"},
	model.KindPort:    {"NAME", "DEVICE", "ADMIN", "ATTACHED", "MAC", "ADDRESSES"},
	model.KindSubnet:  {"NAME", "BRIDGE", "CIDR", "GATEWAY", "DHCP", "MTU"},
	model.KindRoute:   {"NAME", "ROUTER", "DESTINATION", "SOURCE", "NEXT HOP", "WEIGHT"},
	model.KindBinding: {"PORT", "HOST", "INTERFACE"},

	model.KindFloatingIP:   {"NAME", "PORT", "ADDRESS", "FIXED ADDRESS"},
	model.KindChain:        {"NAME"},
	model.KindRule:         {"NAME", "CHAIN", "POSITION", "MATCH", "ACTION"},
	model.KindPortGroup:    {"NAME", "STATEFUL"},
	model.KindAddressGroup: {"NAME", "ADDRESSES"},

	model.KindQoSPolicy: {"NAME", "EGRESS", "INGRESS", "DSCP"},
	model.KindMirror:    {"NAME", "OF", "DIRECTION", "MATCH", "TO PORT"},

	model.KindSecurityGroup:     {"NAME", "STATEFUL"},
	model.KindSecurityGroupRule: {"NAME", "SECURITY GROUP", "DIRECTION", "ALLOWS"},

	model.KindLoadBalancer: {"NAME", "ROUTER", "ADMIN", "ADDRESS", "LISTENERS"},
	model.KindPool:         {"NAME", "PERSISTENCE", "MONITOR"},
	model.KindPoolMember:   {"NAME", "POOL", "ADMIN", "ADDRESS", "WEIGHT", "STATE", "SINCE", "REASON"},
}

// printTables prints one table for each kind, with the id and revision when wide.
func printTables(w io.Writer, l listing, wide bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	var kind model.Kind
	for _, o := range l.objects {
		if o.Kind() != kind {
			if kind != "" {
				fmt.Fprintln(tw)
				tw.Flush() // the next table has columns of its own
			}
			kind = o.Kind()
			header := columns[kind]
			if wide {
				header = append(header[:len(header):len(header)], "TENANT", "ID", "REVISION")
			}
			fmt.Fprintln(tw, strings.Join(header, "\t"))
		}
		cells := row(l.index, o)
		if kind == model.KindPoolMember {
			cells = append(cells, l.members.cells(o.GetMeta().ID)...)
		}
		if wide {
			m := o.GetMeta()
			cells = append(cells, owner(m), m.ID.String(), strconv.FormatInt(m.Revision, 10))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// owner is whose an object is.
func owner(m *model.Meta) string {
	if m.Shared {
		return cmp.Or(m.Tenant, "-") + " (shared)"
	}
	return orDash(m.Tenant)
}

func row(x *ref.Index, o model.Object) []string {
	name := cmp.Or(o.GetMeta().Name, x.Label(o.Kind(), o.GetMeta().ID))
	switch o := o.(type) {
	case *model.Bridge:
		return []string{name, upDown(o.AdminStateUp)}
	case *model.Router:
		return []string{name, upDown(o.AdminStateUp)}
	case *model.Port:
		return []string{name, device(x, o), upDown(o.AdminStateUp), attached(x, o), macText(o.MAC), orDash(joinPrefixes(o.Addresses))}
	case *model.Subnet:
		return []string{name, x.Label(model.KindBridge, o.BridgeID), o.CIDR.String(), orDash(addrText(o.Gateway)), enabled(o), strconv.Itoa(o.MTU)}
	case *model.Route:
		return []string{name, x.Label(model.KindRouter, o.RouterID), o.Destination.String(), source(o), nextHop(x, o), strconv.Itoa(o.Weight)}
	case *model.Host:
		var ends []string
		for _, t := range o.Tunnels {
			ends = append(ends, x.Label(model.KindZone, t.ZoneID)+":"+t.Address.String())
		}
		return []string{name, orDash(strings.Join(ends, ","))}
	case *model.Binding:
		host := x.Label(model.KindHost, o.HostID)
		if o.FromID != uuid.Nil {
			host += " (" + x.Label(model.KindHost, o.FromID) + " lets go)"
		}
		return []string{x.Label(model.KindPort, o.PortID), host, o.Interface}
	case *model.FloatingIP:
		return []string{name, x.Label(model.KindPort, o.PortID), o.Address.String(), o.FixedAddress.String()}
	case *model.AddressGroup:
		return []string{name, orDash(joinPrefixes(o.Addresses))}
	case *model.QoSPolicy:
		dscp := "-"
		if o.DSCP != nil {
			dscp = strconv.Itoa(int(*o.DSCP))
		}
		return []string{name, limitText(o.Egress), limitText(o.Ingress), dscp}
	case *model.Mirror:
		of := o.Source()
		return []string{name, string(of.Kind) + "/" + x.Label(of.Kind, of.ID), string(o.Direction), document.MatchText(&o.Match, x), x.Label(model.KindPort, o.ToPortID)}
	case *model.PortGroup:
		return []string{name, strconv.FormatBool(o.Stateful)}
	case *model.SecurityGroup:
		return []string{name, strconv.FormatBool(o.Stateful)}
	case *model.SecurityGroupRule:
		return []string{name, x.Label(model.KindSecurityGroup, o.GroupID), string(o.Direction), document.AllowsText(o, x)}
	case *model.LoadBalancer:
		return []string{name, x.Label(model.KindRouter, o.RouterID), upDown(o.AdminStateUp), o.Address.String(), orDash(listeners(x, o))}
	case *model.Pool:
		return []string{name, orDash(string(o.SessionPersistence)), orDash(monitor(o))}
	case *model.PoolMember:
		return []string{name, x.Label(model.KindPool, o.PoolID), upDown(o.AdminStateUp), netip.AddrPortFrom(o.Address, o.Port).String(), strconv.Itoa(o.Weight)}
	case *model.Rule:
		return []string{name, x.Label(model.KindChain, o.ChainID), strconv.Itoa(o.Position), document.MatchText(&o.Match, x), ruleAction(x, o)}
	}
	return []string{name}
}

// limitText is the rate and the burst.
func limitText(l model.BandwidthLimit) string {
	if l.MaxKbps == 0 {
		return "-"
	}
	return fmt.Sprintf("%d kbit/s, burst %d kbit", l.MaxKbps, l.Burst())
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func device(x *ref.Index, p *model.Port) string {
	if p.BridgeID != uuid.Nil {
		return "bridge/" + x.Label(model.KindBridge, p.BridgeID)
	}
	return "router/" + x.Label(model.KindRouter, p.RouterID)
}

// attached is what is at the other end of a port.
func attached(x *ref.Index, p *model.Port) string {
	if p.PeerID != uuid.Nil {
		return "port/" + x.Label(model.KindPort, p.PeerID)
	}
	if b, ok := x.Get(model.KindBinding, p.ID).(*model.Binding); ok {
		return "host/" + x.Label(model.KindHost, b.HostID) + ":" + b.Interface
	}
	return "-"
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// enabled is what hosts of a subnet are told: "on", an IPv6 subnet's mode, or "off".
func enabled(s *model.Subnet) string {
	switch {
	case !s.EnableDHCP:
		return "off"
	case s.CIDR.Addr().Is4():
		return "on"
	}
	return orDash(string(cmp.Or(s.IPv6AddressMode, s.IPv6RAMode)))
}

func source(r *model.Route) string {
	if !r.Source.IsValid() {
		return "any"
	}
	return r.Source.String()
}

func nextHop(x *ref.Index, r *model.Route) string {
	if r.NextHop != model.NextHopPort {
		return string(r.NextHop)
	}
	s := "port/" + x.Label(model.KindPort, r.PortID)
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	return s
}

func ruleAction(x *ref.Index, r *model.Rule) string {
	s := string(r.Action)
	switch r.Action {
	case model.RuleJump:
		s += " " + x.Label(model.KindChain, r.JumpID)
	case model.RulePushVLAN:
		s += " " + strconv.Itoa(int(r.VLAN))
	case model.RuleSetDSCP:
		s += " " + strconv.Itoa(int(*r.DSCP))
	case model.RuleRedirect:
		s += " port/" + x.Label(model.KindPort, r.Redirect.PortID)
	case model.RuleDNAT, model.RuleSNAT:
		for i, t := range wire.FromTargets(r.Targets) {
			s += map[bool]string{true: " to ", false: ", "}[i == 0] + t.Addresses
			if t.Ports != "" {
				s += " port " + t.Ports
			}
		}
	}
	if r.Then != "" && r.Then != model.RuleAccept {
		s += ", " + string(r.Then)
	}
	return s
}

func macText(m match.MAC) string {
	if m == (match.MAC{}) {
		return "-"
	}
	return m.String()
}

func joinPrefixes(list []netip.Prefix) string {
	s := make([]string, len(list))
	for i := range list {
		s[i] = list[i].String()
	}
	return strings.Join(s, ",")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// listeners is what a load balancer does, such as "tcp/80:web".
func listeners(x *ref.Index, o *model.LoadBalancer) string {
	var list []string
	for _, l := range o.Listeners {
		list = append(list, fmt.Sprintf("%s/%d:%s", wire.ListenerProtocol(l.Protocol), l.Port, x.Label(model.KindPool, l.PoolID)))
	}
	return strings.Join(list, ",")
}

// monitor is how a pool's members are checked.
func monitor(o *model.Pool) string {
	if o.Monitor == nil {
		return ""
	}
	return fmt.Sprintf("%s every %ds", o.Monitor.Type, o.Monitor.Delay)
}
