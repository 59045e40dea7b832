// Package storetest is what every store.Store must do.
package storetest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Cluster is one store, empty at first, and the links to it.
type Cluster struct {
	// Open connects a client; it is closed when the test ends.
	Open func(t *testing.T) store.Store
	// Cut makes the store unreachable for all clients, Heal undoes it. What was stored stays.
	Cut, Heal func(t *testing.T)
}

// Run checks an implementation. start makes a cluster that ends with its test.
func Run(t *testing.T, start func(t *testing.T) Cluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Cluster)
	}{
		{"RoundTrip", testRoundTrip},
		{"List", testList},
		{"Large", testLarge},
		{"Ownership", testOwnership},
		{"Refusals", testRefusals},
		{"StaleClient", testStaleClient},
		{"ChangeOfHands", testChangeOfHands},
		{"WatchInitial", testWatchInitial},
		{"WatchTransactions", testWatchTransactions},
		{"WatchEnds", testWatchEnds},
		{"Increments", testIncrements},
		{"Races", testRaces},
		{"CutAndHeal", testCutAndHeal},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

// patience bounds a test that would hang; no test waits for it to pass.
const patience = 30 * time.Second

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func id(n byte) uuid.UUID { return uuid.UUID{6: 0x40, 8: 0x80, 15: n} }

func bridge(n byte, name string) *model.Bridge {
	return &model.Bridge{Meta: model.Meta{ID: id(n), Name: name}, AdminStateUp: true}
}

func create(os ...model.Object) []store.Op {
	ops := make([]store.Op, len(os))
	for i, o := range os {
		ops[i] = store.Op{Verb: store.Create, Object: o}
	}
	return ops
}

func mustTxn(t *testing.T, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := s.Txn(withPatience(t), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// network has every kind and every field.
func network() []model.Object {
	return []model.Object{
		bridge(1, "net"),
		&model.Router{Meta: model.Meta{ID: id(2), Name: "gw"}, AdminStateUp: true},
		&model.Host{Meta: model.Meta{ID: id(3), Name: "host-1"}, Tunnels: []model.TunnelEnd{{ZoneID: id(20), Address: netip.MustParseAddr("192.0.2.1")}}},
		&model.Port{Meta: model.Meta{ID: id(4), Name: "vm"}, BridgeID: id(1), AdminStateUp: true,
			MAC:       match.MAC{0x52, 0x54, 0, 1, 2, 3},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32"), netip.MustParsePrefix("fd00::9/128")}},
		&model.Port{Meta: model.Meta{ID: id(5), Name: "up"}, BridgeID: id(1), VLAN: 4094},
		&model.Port{Meta: model.Meta{ID: id(6), Name: "lan"}, RouterID: id(2), PeerID: id(5), AdminStateUp: true, Masquerade: true,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		&model.Route{Meta: model.Meta{ID: id(7), Name: "far"}, RouterID: id(2),
			Destination: netip.MustParsePrefix("10.9.0.0/16"), Source: netip.MustParsePrefix("10.0.0.0/24"),
			NextHop: model.NextHopPort, PortID: id(6), Gateway: netip.MustParseAddr("10.0.0.254"), Weight: 7},
		&model.Route{Meta: model.Meta{ID: id(8)}, RouterID: id(2), Destination: netip.MustParsePrefix("::/0"), NextHop: model.NextHopReject},
		&model.Subnet{Meta: model.Meta{ID: id(9), Name: "lan-v4"}, BridgeID: id(1), CIDR: netip.MustParsePrefix("10.0.0.0/24"),
			Gateway: netip.MustParseAddr("10.0.0.1"), EnableDHCP: true, DNSServers: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, Domain: "example.org",
			MTU: 1400, LeaseTime: 600, HostRoutes: []model.HostRoute{{Destination: netip.MustParsePrefix("10.9.0.0/16"), NextHop: netip.MustParseAddr("10.0.0.254")}},
			ExtraOptions: []model.ExtraOption{{Name: "ntp-server", Value: "10.0.0.3"}}},
		&model.Subnet{Meta: model.Meta{ID: id(10)}, BridgeID: id(1), CIDR: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1"),
			VLAN: 7, EnableDHCP: true, MTU: 1450, LeaseTime: 86400, IPv6RAMode: model.IPv6Stateful, IPv6AddressMode: model.IPv6Stateful},
		&model.Binding{Meta: model.Meta{ID: id(4)}, PortID: id(4), HostID: id(3), Interface: "tap0"},
		&model.FloatingIP{Meta: model.Meta{ID: id(9), Name: "public"}, PortID: id(6),
			Address: netip.MustParseAddr("10.0.0.20"), FixedAddress: netip.MustParseAddr("10.9.0.20")},
		&model.Chain{Meta: model.Meta{ID: id(10), Name: "in"}},
		&model.Chain{Meta: model.Meta{ID: id(11)}},
		&model.PortGroup{Meta: model.Meta{ID: id(12), Name: "vms"}, Stateful: true},
		&model.AddressGroup{Meta: model.Meta{ID: id(13)}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}},
		&model.Bridge{Meta: model.Meta{ID: id(14)}, PreForwardingID: id(10), PostForwardingID: id(11)},
		&model.Router{Meta: model.Meta{ID: id(15)}, PreRoutingID: id(10), PostRoutingID: id(11)},
		&model.Port{Meta: model.Meta{ID: id(16)}, BridgeID: id(14), InboundFilterID: id(10), OutboundFilterID: id(11), PortGroups: []uuid.UUID{id(12)},
			MAC: match.MAC{2, 5: 9}, PortSecurity: true, AllowedAddressPairs: []model.AddressPair{
				{Address: netip.MustParsePrefix("10.0.0.7/32")}, {MAC: match.MAC{2, 5: 8}, Address: netip.MustParsePrefix("fd00::/64")}}},
		&model.SecurityGroup{Meta: model.Meta{ID: id(30), Name: "default"}, Stateful: true},
		&model.SecurityGroup{Meta: model.Meta{ID: id(31)}},
		&model.SecurityGroupRule{Meta: model.Meta{ID: id(32), Name: "all"}, GroupID: id(30), Direction: model.Egress, EtherType: model.IPv6},
		&model.SecurityGroupRule{Meta: model.Meta{ID: id(33)}, GroupID: id(30), Direction: model.Ingress, EtherType: model.IPv4, Protocol: 6,
			PortMin: number(80), PortMax: number(90), RemotePrefix: netip.MustParsePrefix("10.0.0.0/8")},
		&model.SecurityGroupRule{Meta: model.Meta{ID: id(34)}, GroupID: id(31), Direction: model.Ingress, EtherType: model.IPv4, Protocol: 1,
			ICMPType: octet(0), ICMPCode: octet(0), RemoteGroupID: id(30)},
		&model.SecurityGroupRule{Meta: model.Meta{ID: id(35)}, GroupID: id(31), Direction: model.Ingress, EtherType: model.IPv4, RemoteAddressGroupID: id(13)},
		&model.Port{Meta: model.Meta{ID: id(36)}, BridgeID: id(14), MAC: match.MAC{2, 5: 36}, PortSecurity: true, SecurityGroups: []uuid.UUID{id(31), id(30)}},
		&model.Port{Meta: model.Meta{ID: id(37)}, BridgeID: id(14), MAC: match.MAC{2, 5: 37}, PortSecurity: true, SecurityGroups: []uuid.UUID{}},
		&model.QoSPolicy{Meta: model.Meta{ID: id(40), Name: "silver"}, DSCP: octet(0),
			Egress: model.BandwidthLimit{MaxKbps: 1000, MaxBurstKbps: 800}, Ingress: model.BandwidthLimit{MaxKbps: 5000}},
		&model.Port{Meta: model.Meta{ID: id(41)}, BridgeID: id(14), QoSPolicyID: id(40)},
		&model.Mirror{Meta: model.Meta{ID: id(42), Name: "tap"}, PortID: id(4), Direction: model.MirrorIn, BeforeFilters: true, Match: withoutConnection(6), ToPortID: id(41)},
		&model.Mirror{Meta: model.Meta{ID: id(43)}, BridgeID: id(14), Direction: model.MirrorBoth, ToPortID: id(41)},
		&model.Mirror{Meta: model.Meta{ID: id(44)}, RouterID: id(2), Direction: model.MirrorOut, ToPortID: id(41)},
		&model.Rule{Meta: model.Meta{ID: id(17), Name: "jump"}, ChainID: id(10), Position: 5, Action: model.RuleJump, JumpID: id(11)},
		&model.Rule{Meta: model.Meta{ID: id(18)}, ChainID: id(11), Position: 1, Action: model.RuleReject, Match: condition(6)},
		&model.TunnelZone{Meta: model.Meta{ID: id(20), Name: "rack"}},
		&model.Rule{Meta: model.Meta{ID: id(21)}, ChainID: id(11), Position: 3, Action: model.RuleDNAT, Then: model.RuleContinue, Log: true,
			Match: model.Condition{Proto: 6}, Targets: []model.NATTarget{
				{From: netip.MustParseAddr("10.0.0.5"), To: netip.MustParseAddr("10.0.0.6"), Ports: &model.Range{From: 80, To: 81}},
				{From: netip.MustParseAddr("10.0.0.9"), To: netip.MustParseAddr("10.0.0.9")}}},
		&model.Rule{Meta: model.Meta{ID: id(22)}, ChainID: id(11), Position: 4, Action: model.RulePushVLAN, VLAN: 12, Then: model.RuleReturn},
		&model.Rule{Meta: model.Meta{ID: id(24)}, ChainID: id(11), Position: 6, Action: model.RuleSetDSCP, DSCP: octet(0), Then: model.RuleAccept},
		&model.Rule{Meta: model.Meta{ID: id(23)}, ChainID: id(11), Position: 5, Action: model.RuleRedirect,
			Redirect: model.Redirect{PortID: id(4), Egress: true, FailOpen: true}},
		&model.Pool{Meta: model.Meta{ID: id(40), Name: "web"}, SessionPersistence: model.PersistenceSourceIP, PersistenceTimeout: 60,
			Monitor: &model.HealthMonitor{Type: model.MonitorHTTP, Delay: 2, Timeout: 1, MaxRetries: 2, MaxRetriesDown: 4, URLPath: "/up", ExpectedCodes: "200-204"}},
		&model.Pool{Meta: model.Meta{ID: id(41)}},
		&model.PoolMember{Meta: model.Meta{ID: id(42), Name: "web-1"}, PoolID: id(40), AdminStateUp: true, Address: netip.MustParseAddr("10.0.0.9"),
			Port: 80, Weight: 3, MonitorPort: 81},
		&model.PoolMember{Meta: model.Meta{ID: id(43)}, PoolID: id(41), Address: netip.MustParseAddr("fd00::9"), Port: 53},
		&model.LoadBalancer{Meta: model.Meta{ID: id(44), Name: "front"}, RouterID: id(2), AdminStateUp: true, Address: netip.MustParseAddr("10.0.0.80"),
			Listeners: []model.Listener{{Protocol: 6, Port: 80, PoolID: id(40)}, {Protocol: 6, Port: 8080, PoolID: id(40)}}},
		&model.LoadBalancer{Meta: model.Meta{ID: id(45)}, RouterID: id(2), Address: netip.MustParseAddr("fd00::80"),
			Listeners: []model.Listener{{Protocol: 17, Port: 53, PoolID: id(41)}}},
		&model.Rule{Meta: model.Meta{ID: id(19)}, ChainID: id(11), Position: 2, Action: model.RuleDrop, Match: condition(1)},
	}
}

func number(n uint16) *uint16 { return &n }
func octet(n uint8) *uint8    { return &n }

// withoutConnection is for mirrors, which follow none.
func withoutConnection(proto uint8) model.Condition {
	m := condition(proto)
	m.Connection, m.Not = model.ConnectionAny, m.Not&^model.MatchConnection
	return m
}

// condition has every field that can be given with a protocol.
func condition(proto uint8) model.Condition {
	tos := uint8(0)
	m := model.Condition{
		Invert: true, Not: model.MatchSrc | model.MatchEthSrc | model.MatchConnection | model.MatchDstRewritten, InPorts: []uuid.UUID{id(4), id(5)}, OutPorts: []uuid.UUID{id(6)},
		InPortGroup: id(12), OutPortGroup: id(12), PortGroup: id(12), Traversed: id(2),
		EthType: 0x0800, EthSrc: model.MACMatch{Addr: match.MAC{2}, Mask: match.MAC{0xff}}, EthDst: model.MACMatch{Addr: match.MAC{2}, Mask: model.FullMAC},
		TOS: &tos, Proto: proto, Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("0.0.0.0/0"),
		OriginalDst: netip.MustParsePrefix("10.3.0.0/16"), DstRewritten: true,
		SrcGroup: id(13), DstGroup: id(13), Fragment: model.FragmentUnfragmented, Connection: model.ConnectionReturn,
	}
	if proto == 1 {
		m.NoVLAN = true
		m.ICMPTypes, m.ICMPCodes = &model.Range{}, &model.Range{To: 255}
		m.QuotedSrc, m.QuotedDst = netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")
	} else {
		m.VLAN = 7
		m.SrcPorts, m.DstPorts = &model.Range{From: 1024, To: 65535}, &model.Range{}
	}
	return m
}

// diff compares objects, whichever way they hold the same address.
func diff(want, got any) string {
	return cmp.Diff(want, got,
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// state reads everything there is.
func state(t *testing.T, s store.Store) map[model.Key]model.Object {
	t.Helper()
	all := make(map[model.Key]model.Object)
	for _, k := range model.Kinds {
		os, _, err := s.List(withPatience(t), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			all[model.KeyOf(o)] = o
		}
	}
	return all
}
