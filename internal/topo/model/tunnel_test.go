package model

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestTunnelKeys(t *testing.T) {
	g := sampleGraph(t)
	owner := map[uint32]uuid.UUID{}
	for o := range g.All(KindPort) {
		p := o.(*Port)
		if other, taken := owner[p.TunnelKey]; taken || p.TunnelKey == 0 || p.TunnelKey > MaxTunnelKey {
			t.Errorf("port %s has key %d, as has %s", p.Name, p.TunnelKey, other)
		}
		owner[p.TunnelKey] = p.ID
	}
	key := g.Get(KindPort, vm1).(*Port).TunnelKey
	stage := func(ops ...Op) error {
		s, err := g.Stage(ops...)
		if err == nil {
			s.Commit(2)
		}
		return err
	}
	// Whoever replaces a port need not know its key.
	err := stage(changed(g, vm1, func(p *Port) { p.TunnelKey, p.Name = 0, "renamed" })...)
	if p := g.Get(KindPort, vm1).(*Port); err != nil || p.TunnelKey != key || p.Name != "renamed" {
		t.Errorf("after a change the port is %+v, %v; want key %d", p, err, key)
	}
	if err := stage(changed(g, vm1, func(p *Port) { p.TunnelKey = key%MaxTunnelKey + 1 })...); err == nil || !strings.Contains(err.Error(), "cannot change") {
		t.Errorf("another key: %v", err)
	}
	if err := stage(create(&Port{Meta: Meta{ID: id(50)}, BridgeID: br1, TunnelKey: key})...); err == nil || !strings.Contains(err.Error(), "already that of") {
		t.Errorf("a key that is taken: %v", err)
	}
	if err := stage(create(&Port{Meta: Meta{ID: id(50)}, BridgeID: br1, TunnelKey: MaxTunnelKey + 1})...); err == nil {
		t.Error("a key that is no port's was accepted")
	}
}

// Two ports whose ids want the same key get two, in one transaction and in two.
func TestTunnelKeysCollide(t *testing.T) {
	wanted := map[uint32]uuid.UUID{}
	var a, b uuid.UUID
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; b == uuid.Nil; i++ {
		p := &Port{Meta: Meta{ID: uuid.UUID{6: 0x40, 8: 0x80}}}
		binary.BigEndian.PutUint32(p.ID[12:], random.Uint32())
		binary.BigEndian.PutUint32(p.ID[:4], random.Uint32())
		d := draft{graph: NewGraph(), keys: map[uint32]uuid.UUID{}}
		key := d.chooseTunnelKey(p.ID)
		if other, ok := wanted[key]; ok {
			a, b = other, p.ID
		}
		if wanted[key] = p.ID; i == 1<<17 {
			t.Fatal("no two ids collide")
		}
	}
	port := func(id uuid.UUID) *Port { return &Port{Meta: Meta{ID: id}, BridgeID: br1} }
	for _, split := range []int{1, 2} {
		g := NewGraph()
		ops := append(create(&Bridge{Meta: Meta{ID: br1}}, port(a)), create(port(b))...)
		for _, part := range [][]Op{ops[:split+1], ops[split+1:]} {
			s, err := g.Stage(part...)
			if err != nil {
				t.Fatal(err)
			}
			s.Commit(1)
		}
		if x, y := g.Get(KindPort, a).(*Port).TunnelKey, g.Get(KindPort, b).(*Port).TunnelKey; x == y {
			t.Errorf("both have key %d", x)
		}
	}
}

func TestTunnelZones(t *testing.T) {
	g := sampleGraph(t)
	zone, other := id(60), id(61)
	end := func(z uuid.UUID, a string) TunnelEnd { return TunnelEnd{z, netip.MustParseAddr(a)} }
	host := func(n byte, ends ...TunnelEnd) *Host { return &Host{Meta: Meta{ID: id(n)}, Tunnels: ends} }
	s, err := g.Stage(create(&TunnelZone{Meta: Meta{ID: zone}}, &TunnelZone{Meta: Meta{ID: other}}, host(62, end(zone, "192.0.2.1")))...)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit(2)
	for _, c := range []struct {
		op   []Op
		want string
	}{
		{create(host(63, end(zone, "192.0.2.1"))), "already that of host"},
		{create(host(63, end(id(99), "192.0.2.2"))), "tunnels[0].zone: no tunnel_zone"},
		{create(host(63, end(zone, "192.0.2.2"), end(zone, "192.0.2.3"))), "tunnels[1].zone: is there twice"},
		{create(host(63, end(zone, "224.0.0.1"))), "tunnels[0].address"},
		{remove(&TunnelZone{Meta: Meta{ID: zone}}), "host"},
		{create(host(63, end(other, "192.0.2.1"))), ""},
	} {
		_, err := g.Stage(c.op...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	six := id(97)
	me := host(70, end(other, "192.0.2.9"), end(six, "fd00::9"), end(zone, "192.0.2.9"))
	for _, c := range []struct {
		to   *Host
		want string
	}{
		{host(71, end(zone, "192.0.2.7")), "192.0.2.7"},
		{host(71, end(zone, "192.0.2.7"), end(other, "192.0.2.8")), "192.0.2.8"},
		{host(71, end(six, "fd00::7")), "fd00::7"},
		{host(71, end(six, "192.0.2.7")), ""}, // of the other family: it cannot be reached from there
		{host(71, end(id(98), "192.0.2.7")), ""},
	} {
		got, ok := c.to.TunnelEnd(me)
		if ok != (c.want != "") || ok && got.Address.String() != c.want {
			t.Errorf("to %v: %v, want %q", c.to.Tunnels, got, c.want)
		}
	}
}
