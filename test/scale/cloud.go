package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// shape is how big a cloud is.
type shape struct {
	hosts, ports, networks, spread, hosted int
}

// perBridge is how many VMs a bridge has, but for those of the last host.
const perBridge = 50

func (s *shape) check() error {
	switch {
	case min(s.hosts, s.ports, s.networks, s.spread, s.hosted) < 1:
		return fmt.Errorf("-agents, -ports, -networks, -spread and -hosted are at least 1")
	case s.ports < s.hosts*s.spread:
		return fmt.Errorf("-ports %d: each of %d hosts has %d VMs at least", s.ports, s.hosts, s.spread)
	case s.hosted > 1000 || s.ports/s.hosts > 1000:
		return fmt.Errorf("a host has 1000 VMs at most")
	case s.perNetwork() > 100*perBridge:
		return fmt.Errorf("a network has %d VMs at most: -networks %d or more", 100*perBridge, s.ports/(100*perBridge)+1)
	}
	return nil
}

// perNetwork is how many VMs of the hosts of many a network has.
func (s *shape) perNetwork() int { return (s.ports + s.networks - 1) / s.networks }

// vm is one VM.
type vm struct {
	id      uuid.UUID
	host    int // hosts: the last one
	iface   string
	network int
	bridge  int // of the network
	mac     match.MAC
	addr    netip.Addr
}

// cloud is what was made, as far as measurements ask for it.
type cloud struct {
	shape
	vms      []vm
	byHost   [][]int // into vms
	networks []network
	platform uuid.UUID // the chain that all routers have
}

// network is one tenant's.
type network struct {
	tenant  string
	router  uuid.UUID
	group   uuid.UUID
	bridges []uuid.UUID
	gateway []match.MAC    // on each bridge
	hosts   map[int]bool   // that have VMs of it
	onto    []map[int]bool // the same of each bridge
}

// id is the same in each run: figures of one cloud are to be compared.
func id(kind byte, a, b int) (u uuid.UUID) {
	u[0], u[6], u[8] = kind, 0x40, 0x80
	binary.BigEndian.PutUint16(u[1:], uint16(a))
	binary.BigEndian.PutUint32(u[12:], uint32(b))
	return u
}

// Kinds of ids.
const (
	idHost byte = iota + 1
	idZone
	idChain
	idRouter
	idBridge
	idGroup
	idRule
	idVM
	idUp
	idLeg
	idRoute
)

// lastHost is the name of the host whose agent is a process of its own.
const lastHost = "last"

func (s *shape) hostName(i int) string {
	if i == s.hosts {
		return lastHost
	}
	return fmt.Sprintf("host%d", i)
}

// underlay is where a host is reached, and hostAt the host that is.
func underlay(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, byte(host >> 8), byte(host)})
}

func hostAt(a netip.Addr) int {
	b := a.As4()
	return int(b[2])<<8 | int(b[3])
}

// plan places all VMs: spread of a network on a host, then the next host.
func (s *shape) plan() *cloud {
	c := &cloud{shape: *s, byHost: make([][]int, s.hosts+1), platform: id(idChain, 0, 0)}
	per := s.perNetwork()
	for n := range s.networks {
		x := network{tenant: fmt.Sprintf("tenant%d", n), router: id(idRouter, n, 0), group: id(idGroup, n, 0), hosts: map[int]bool{}}
		for b := range (per + perBridge - 1) / perBridge {
			x.bridges = append(x.bridges, id(idBridge, n, b))
			x.gateway = append(x.gateway, match.MAC{2, 1, 0, 0, 0, byte(b)})
			x.onto = append(x.onto, map[int]bool{})
		}
		c.networks = append(c.networks, x)
	}
	place := func(n, k, host int) {
		x := &c.networks[n]
		b := min(k/perBridge, len(x.bridges)-1)
		at := k - b*perBridge + 2 // 1 is the gateway's
		v := vm{id: id(idVM, n, k), host: host, iface: fmt.Sprintf("vm%d", len(c.byHost[host])), network: n, bridge: b,
			mac: match.MAC{2, 2, 0, byte(b), byte(at >> 8), byte(at)}, addr: netip.AddrFrom4([4]byte{10, byte(b), byte(at >> 8), byte(at)})}
		if host == s.hosts {
			v.iface = fmt.Sprintf("last%d", len(c.byHost[host]))
		}
		x.hosts[host], x.onto[b][host] = true, true
		c.byHost[host] = append(c.byHost[host], len(c.vms))
		c.vms = append(c.vms, v)
	}
	for i := range s.ports {
		place(i/per, i%per, i/s.spread%s.hosts)
	}
	for i := range s.hosted {
		place(i/s.spread%s.networks, per+i/s.spread/s.networks*s.spread+i%s.spread, s.hosts)
	}
	return c
}

// objects are all that the cloud is made of, in parts that one transaction each makes.
func (c *cloud) objects() (parts [][]model.Object) {
	zone := id(idZone, 0, 0)
	common := []model.Object{
		&model.TunnelZone{Meta: model.Meta{ID: zone, Name: "underlay"}},
		&model.Chain{Meta: model.Meta{ID: c.platform, Name: "platform", Shared: true}},
		platformRule(0),
	}
	for h := range c.hosts + 1 {
		common = append(common, &model.Host{Meta: model.Meta{ID: id(idHost, h, 0), Name: c.hostName(h)},
			Tunnels: []model.TunnelEnd{{ZoneID: zone, Address: underlay(h)}}})
	}
	parts = append(parts, common)
	of := make([][]model.Object, len(c.networks))
	for n := range c.networks {
		of[n] = c.devices(n)
	}
	for _, v := range c.vms {
		of[v.network] = append(of[v.network], c.port(v), c.binding(v))
	}
	const together = 1000 // objects: less than what an etcd takes that nobody has configured
	for n := 0; n < len(of); {
		var part []model.Object
		for ; n < len(of) && (len(part) == 0 || len(part)+len(of[n]) <= together); n++ {
			part = append(part, of[n]...)
		}
		parts = append(parts, part)
	}
	return parts
}

// platformRule drops what no VM sends; each n another such thing.
func platformRule(n int) *model.Rule {
	return &model.Rule{Meta: model.Meta{ID: id(idRule, 1, n), Shared: true}, ChainID: id(idChain, 0, 0), Position: 1, Action: model.RuleDrop,
		Match: model.Condition{Proto: 6, DstPorts: &model.Range{From: uint16(10_000 + n), To: uint16(10_000 + n)}}}
}

func (c *cloud) meta(u uuid.UUID, n int) model.Meta {
	return model.Meta{ID: u, Tenant: c.networks[n].tenant}
}

// devices are a network without its VMs.
func (c *cloud) devices(n int) []model.Object {
	x := c.networks[n]
	os := []model.Object{
		&model.Router{Meta: c.meta(x.router, n), AdminStateUp: true, PreRoutingID: c.platform},
		&model.SecurityGroup{Meta: c.meta(x.group, n), Stateful: true},
		&model.SecurityGroupRule{Meta: c.meta(id(idRule, 100+n, 0), n), GroupID: x.group, Direction: model.Egress},
		&model.SecurityGroupRule{Meta: c.meta(id(idRule, 100+n, 1), n), GroupID: x.group, Direction: model.Ingress, RemoteGroupID: x.group},
		c.groupRule(n, 0),
	}
	for b, u := range x.bridges {
		os = append(os,
			&model.Bridge{Meta: c.meta(u, n), AdminStateUp: true},
			&model.Port{Meta: c.meta(id(idUp, n, b), n), BridgeID: u, PeerID: id(idLeg, n, b), AdminStateUp: true},
			&model.Port{Meta: c.meta(id(idLeg, n, b), n), RouterID: x.router, PeerID: id(idUp, n, b), AdminStateUp: true, MAC: x.gateway[b],
				Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(b), 0, 1}), 16)}})
	}
	return os
}

// groupRule allows a TCP port, each i another one.
func (c *cloud) groupRule(n, i int) *model.SecurityGroupRule {
	port := uint16(1000 + i)
	return &model.SecurityGroupRule{Meta: c.meta(id(idRule, 100+n, 2+i), n), GroupID: c.networks[n].group, Direction: model.Ingress, Protocol: 6, PortMin: &port, PortMax: &port}
}

func (c *cloud) port(v vm) *model.Port {
	x := c.networks[v.network]
	return &model.Port{Meta: c.meta(v.id, v.network), BridgeID: x.bridges[v.bridge], AdminStateUp: true, MAC: v.mac,
		Addresses: []netip.Prefix{netip.PrefixFrom(v.addr, 32)}, PortSecurity: true, SecurityGroups: []uuid.UUID{x.group}}
}

func (c *cloud) binding(v vm) *model.Binding {
	return &model.Binding{Meta: model.Meta{ID: v.id}, PortID: v.id, HostID: id(idHost, v.host, 0), Interface: v.iface}
}

// build makes the cloud through the API.
func (o *options) build(ctx context.Context, api *client.Client) (*cloud, error) {
	c := o.plan()
	start, n, longest := time.Now(), 0, time.Duration(0)
	for _, part := range c.objects() {
		ops := make([]store.Op, len(part))
		for i, x := range part {
			ops[i] = store.Op{Verb: store.Create, Object: x}
		}
		began := time.Now()
		if _, err := api.Txn(ctx, ops...); err != nil {
			return nil, err
		}
		n, longest = n+len(part), max(longest, time.Since(began))
	}
	o.emit("cloud_objects_per_s", float64(n)/time.Since(start).Seconds(), "1/s")
	o.emit("cloud_longest_transaction_ms", float64(longest)/1e6, "ms")
	return c, nil
}
